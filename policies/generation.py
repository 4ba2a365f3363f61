"""Batched generation from exact ids: one prefill of each distinct prompt, then a token at a time.

Prompts are padded on the right, so the cache has holes behind the shorter ones; a mask hides them,
and positions are given outright. Rows that are done leave the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .interface import Sampling
from .key_value_cache import GrowingCache
from .pictures import picture_digest
from .sampling import choose, draw_uniform
from .token_model import PicturedIds, TokenModel

if TYPE_CHECKING:
    from PIL import Image

_SHRINK = 0.75  # rows are dropped once at most this share of them is still writing


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What one row starts from.

    Attributes:
        ids: The episode so far, the assistant's turn opened.
        images: Its pictures.
        seed: Of the episode.
        turn: Which reply this is.
        limit: The most tokens that may be drawn, at least 1.
    """

    ids: tuple[int, ...]
    images: Sequence[Image.Image]
    seed: int
    turn: int
    limit: int


@dataclass(slots=True)
class Completion:
    """What one row wrote: ids, their log-probabilities, and whether it came to its end."""

    ids: list[int] = field(default_factory=list[int])
    log_probabilities: list[float] = field(default_factory=list[float])
    is_finished: bool = False


@torch.inference_mode()
def generate(model: TokenModel, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
    """Write each prompt's continuation up to the end of its turn or its limit.

    The log-probabilities are those of the model's own distribution (temperature 1, nothing left
    out), whatever tokens were drawn from, so that they equal a full forward pass.
    """
    rows = _Rows(model, prompts)
    allowed = model.allowed()
    completions = [Completion() for _ in prompts]
    for step in range(max(prompt.limit for prompt in prompts)):
        chosen = choose(rows.logits, rows.uniform[:, step], sampling, allowed)
        scores = rows.logits.log_softmax(dim=-1).gather(1, chosen[:, None]).squeeze(1)
        drawn = zip(rows.members, chosen.tolist(), scores.tolist(), strict=True)
        for slot, (member, token, score) in enumerate(drawn):
            if rows.is_writing[slot]:
                completion = completions[member]
                completion.ids.append(token)
                completion.log_probabilities.append(score)
                completion.is_finished = token == model.chat.end_id
                at_limit = len(completion.ids) >= prompts[member].limit
                rows.is_writing[slot] = not (completion.is_finished or at_limit)
        if not any(rows.is_writing):
            break
        rows.advance(chosen)
    return completions


class _Rows:
    """The rows being written: their cache, next logits and bookkeeping, aligned by slot."""

    def __init__(self, model: TokenModel, prompts: Sequence[Prompt]) -> None:
        self._model = model
        first, of_prompt = _distinct(prompts)
        batch = model.pad([PicturedIds(prompts[i].ids, prompts[i].images) for i in first])
        self._cache = GrowingCache()
        hidden = model.hidden(batch, cache=self._cache)
        last = (batch.lengths - 1).to(model.device)
        every = torch.arange(len(first), device=model.device)
        columns = torch.arange(batch.ids.shape[1], device=model.device)
        chosen = torch.tensor(of_prompt, device=model.device)
        positions = batch.positions[0].to(model.device)
        if len(first) < len(prompts):
            self._cache.select(chosen)
        self.members = list(range(len(prompts)))
        self.is_writing = [True] * len(prompts)
        self.logits = model.logits(hidden[every, last])[chosen]
        self._next_position = (positions[every, last] + 1)[chosen]
        self._is_seen = (columns[None] <= last[:, None])[chosen]
        longest = max(prompt.limit for prompt in prompts)
        draws = [draw_uniform(prompt.seed, prompt.turn, longest) for prompt in prompts]
        self.uniform = torch.stack(draws).to(model.device)

    def advance(self, chosen: Tensor) -> None:
        """Feed the drawn tokens, done rows left out once they are many."""
        if sum(self.is_writing) <= _SHRINK * len(self.is_writing):
            chosen = self._drop_done(chosen)
        ones = self._is_seen.new_ones(len(self.members), 1)
        self._is_seen = torch.cat([self._is_seen, ones], dim=1)
        self.logits = self._model.step(
            chosen, self._next_position, self._is_seen, cache=self._cache
        )
        self._next_position = self._next_position + 1

    def _drop_done(self, chosen: Tensor) -> Tensor:
        slots = [slot for slot, writing in enumerate(self.is_writing) if writing]
        keep = torch.tensor(slots, device=chosen.device)
        self._cache.select(keep)
        self.members = [self.members[slot] for slot in slots]
        self.is_writing = [True] * len(slots)
        self.uniform = self.uniform[keep]
        self._is_seen = self._is_seen[keep]
        self._next_position = self._next_position[keep]
        return chosen[keep]


def _distinct(prompts: Sequence[Prompt]) -> tuple[list[int], list[int]]:
    """Find equal prompts: the first of each, and for every prompt which of those it equals."""
    seen: dict[tuple[tuple[int, ...], tuple[bytes, ...]], int] = {}
    first: list[int] = []
    of_prompt: list[int] = []
    for index, prompt in enumerate(prompts):
        key = (prompt.ids, tuple(picture_digest(image) for image in prompt.images))
        if key not in seen:
            seen[key] = len(first)
            first.append(index)
        of_prompt.append(seen[key])
    return first, of_prompt
