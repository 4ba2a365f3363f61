"""Contestants that play episodes: our engine, and transformers' ``generate`` turn by turn."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from codedance.envs.types import Task
from codedance.policies import rollout
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Sampling
from codedance.policies.models.model_folder import load_token_model, read_notes

from .episodes import (
    MAX_NEW_TOKENS,
    MAX_TURNS,
    PausingSandbox,
    Played,
    open_episodes,
    play_turns,
)

if TYPE_CHECKING:
    from codedance.policies.models.token_model import TokenModel
    from PIL import Image


class OurEngine:
    """Our engine: continuous batching, with caches reused over turns.

    Args:
        source: Folder of the model.
        sandbox: Sandbox of the tool.
        deterministic: Whether requests join the batch in a deterministic order.
    """

    def __init__(self, source: str, sandbox: PausingSandbox, *, deterministic: bool = True) -> None:
        model = load_token_model(source)
        self._policy = VisionLanguagePolicy(model, policy_id="ours", notes=read_notes(source))
        self._sandbox = sandbox
        self._deterministic = deterministic
        self.name = "ours" if deterministic else "ours, deterministic: false"

    def play(self, tasks: Sequence[Task], samples: int, seed: int) -> Played:
        """Roll out ``samples`` episodes per task."""
        begun = time.perf_counter()
        found = rollout(
            self._policy,
            tasks,
            samples=samples,
            seed=seed,
            sandbox=self._sandbox,
            sampling=Sampling(max_new_tokens=MAX_NEW_TOKENS),
            max_turns=MAX_TURNS,
            batch_size=len(tasks) * samples,
            evidence=False,
            deterministic=self._deterministic,
        )
        seconds = time.perf_counter() - begun
        tokens = sum(sum(one.tokens.mask) for one in found if one.tokens is not None)
        return Played(seconds, tokens, len(found))


class PlainGenerate:
    """`model.generate` turn by turn: everything is read again, including images.

    The model is as transformers loads it. Images are processed once, unlike in most programs.

    Args:
        source: Folder of the model.
        sandbox: Sandbox of the tool.
    """

    name = "model.generate"

    def __init__(self, source: str, sandbox: PausingSandbox) -> None:
        from transformers import AutoModelForImageTextToText

        self._ours: TokenModel = load_token_model(source)  # its tokenizer and processor are used
        self._max_pixels = read_notes(source).max_pixels
        self._sandbox = sandbox
        with without_bars():
            self._model: Any = AutoModelForImageTextToText.from_pretrained(source, dtype="auto")
        self._model = self._model.to(self._ours.device).eval()
        self._forbidden = [n for n, ok in enumerate(self._ours.allowed().tolist()) if not ok]

    def play(self, tasks: Sequence[Task], samples: int, seed: int) -> Played:
        """Roll out ``samples`` episodes per task."""
        torch.manual_seed(seed)
        begun = time.perf_counter()
        episodes = open_episodes(tasks, samples, self._sandbox, max_pixels=self._max_pixels)
        scripts = play_turns(episodes, self._ours.chat, self._write)
        seconds = time.perf_counter() - begun
        return Played(seconds, sum(sum(one.own) for one in scripts), len(scripts))

    @torch.inference_mode()
    def _write(
        self, ids: Sequence[Sequence[int]], images: Sequence[Sequence[Image.Image]]
    ) -> list[list[int]]:
        end, device = self._ours.chat.end_id, self._ours.device
        longest = max(map(len, ids))
        padded = torch.full((len(ids), longest), end)
        mask = torch.zeros_like(padded)
        for row, own in enumerate(ids):
            padded[row, longest - len(own) :] = torch.tensor(own)
            mask[row, longest - len(own) :] = 1
        out: torch.Tensor = self._model.generate(
            input_ids=padded.to(device),
            attention_mask=mask.to(device),
            mm_token_type_ids=(padded == self._ours.chat.image_id).int().to(device),
            **picture_inputs(self._ours, [image for own in images for image in own]),
            do_sample=True,
            top_k=0,
            max_new_tokens=MAX_NEW_TOKENS,
            suppress_tokens=self._forbidden,
            eos_token_id=end,
            pad_token_id=end,
        )
        return [cut_after(row, end) for row in out[:, longest:].tolist()]


@contextmanager
def without_bars() -> Generator[None]:
    """Disable transformers' progress bars."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def picture_inputs(model: TokenModel, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """Return transformers' inputs for images, each processed once."""
    patches = [model.pictures.patches(image) for image in images]
    grids = torch.tensor([[1, *one.grid] for one in patches], device=model.device)
    values = model.pictures.pixel_values(patches).to(model.device)
    return {"pixel_values": values, "image_grid_thw": grids}


def cut_after(ids: list[int], end: int) -> list[int]:
    """Return ids up to and including the first end token."""
    return ids[: ids.index(end) + 1] if end in ids else ids
