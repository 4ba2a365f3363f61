"""Tests every supported model family, on tiny random models of the true architectures.

Each is loaded like any model folder, plays turns with an image returned after each, compares the
recorded log-probabilities with one full forward pass of the plain library model and its image
processor, and takes one step of supervised training.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from codedance.envs.types import Message, Task, Tokens

from .tables import Table
from .tiny_families import TINY_FAMILIES, TinyFamily, build_tiny

if TYPE_CHECKING:
    from codedance.policies.inference.vlm import VisionLanguagePolicy
    from codedance.policies.interface import Conversation
    from PIL import Image

TOLERANCE = 1e-4
"""Tolerance of a log-probability, in float32."""
_TURNS = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of one family.

    Attributes:
        name: Name of the family.
        parameters: Number of parameters of its tiny model.
        generated: Number of tokens generated in all turns.
        tool_images: Number of images returned after its turns.
        difference: Largest difference between a recorded log-probability and the library's.
        loss: Loss of the training step.
        moved: Largest change of a weight in the training step.
        done: Adaptation that the family needed.
    """

    name: str
    parameters: int
    generated: int
    tool_images: int
    difference: float
    loss: float
    moved: float
    done: str

    @property
    def is_exact(self) -> bool:
        """Whether the recorded log-probabilities match the library's."""
        return self.difference <= TOLERANCE


def try_families() -> Iterator[Trial]:
    """Test all families, one after the other."""
    for name, family in TINY_FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            yield try_family(name, family, Path(folder))


def try_family(name: str, family: TinyFamily, folder: Path) -> Trial:
    """Build, load, generate, compare, train."""
    from codedance.policies.inference.vlm import VisionLanguagePolicy
    from codedance.policies.models.model_folder import load_token_model

    build_tiny(family, folder / "model")
    model = load_token_model(folder / "model", device="cpu")
    policy = VisionLanguagePolicy(model, policy_id=name)
    conversation = _converse(policy)
    tokens = conversation.tokens or Tokens((), (), ())
    images = [image for message in conversation.messages for image in message.images]
    shown, never = images[: tokens.images], model.encoder.forbidden_ids
    expected = library_scores(folder / "model", tokens.ids, shown, never_sampled=never)
    pairs = zip(expected, tokens.log_probabilities, tokens.mask, strict=True)
    loss, moved = _train(folder)
    return Trial(
        name,
        parameters=sum(weight.numel() for weight in model.model.parameters()),
        generated=sum(tokens.mask),
        tool_images=tokens.images - 1,
        difference=max(abs(one - other) for one, other, is_compared in pairs if is_compared),
        loss=loss,
        moved=moved,
        done=family.done,
    )


def library_scores(
    folder: Path,
    ids: Sequence[int],
    images: Sequence[Image.Image],
    *,
    never_sampled: Sequence[int] = (),
) -> tuple[float, ...]:
    """Return each id's log-probability by transformers' own model; 0.0 for the first.

    Args:
        folder: Model folder.
        ids: Token ids.
        images: Images that they refer to.
        never_sampled: Ids that are left out of the distribution.
    """
    import torch
    from codedance.policies.models.model_folder import load_image_processor, quiet
    from transformers import AutoModelForImageTextToText

    with quiet():
        model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = load_image_processor(folder)
    kind = model.config.model_type
    is_nested = kind in ("idefics3", "smolvlm", "llava_onevision")
    options = {"crop_to_patches": True} if kind == "internvl" else {}
    given = processor(
        images=[list(images)] if is_nested else list(images), return_tensors="pt", **options
    )
    known = inspect.signature(model.forward).parameters
    inputs = {name: value for name, value in given.items() if name in known}
    row = torch.tensor([list(ids)])
    kinds = (row == model.config.image_token_id).long()
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in known:
            inputs[name] = kinds
    if "batch_num_images" in given:
        inputs["batch_num_images"] = given["batch_num_images"]
    with torch.inference_mode():
        logits = model(input_ids=row, **inputs).logits
        logits[..., list(never_sampled)] = -torch.inf
        scores = logits.log_softmax(-1)
    return (0.0, *scores[0, :-1].gather(1, row[0, 1:, None])[:, 0].tolist())


def trial_table(trials: Sequence[Trial]) -> Table:
    """Return the table of the trials."""
    return Table(
        "model families, tiny random models of the true architectures",
        ("", "weights", "wrote", "images back", "off by", "loss"),
        tuple(
            (
                one.name,
                f"{one.parameters:,}",
                str(one.generated),
                str(one.tool_images),
                f"{one.difference:.0e}" + ("" if one.is_exact else " !"),
                f"{one.loss:.2f}",
            )
            for one in trials
        ),
    )


def trial_lines(trials: Sequence[Trial]) -> Iterator[str]:
    """Yield the lines below the table."""
    yield "wrote: tokens, in three turns; images back: images that a tool returned"
    yield "off by: recorded log-probabilities against one pass of transformers' own model"
    yield "loss: of one step of supervised training, which changed the weights"
    yield "adaptations:"
    for one in trials:
        yield f"  {one.name}: {one.done}"


def noise(seed: int, width: int, height: int) -> Image.Image:
    """Return an image of random pixels."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _converse(policy: VisionLanguagePolicy) -> Conversation:
    """Let a policy generate some turns, with an image returned after each."""
    from codedance.policies.interface import Conversation, Sampling

    first = Message("user", (noise(0, 90, 60), "How many dots?"))
    conversation = Conversation([Message("system", ("Look closely.",)), first], seed=2)
    for turn in range(_TURNS):
        (reply,) = policy.reply([conversation], sampling=Sampling(max_new_tokens=12))
        returned = Message("user", ("<tool_response>", noise(turn + 1, 40, 50), "</tool_response>"))
        conversation.messages += [Message("assistant", (reply.text,)), returned]
        conversation.turn += 1
    return conversation


def _train(folder: Path) -> tuple[float, float]:
    """Take one step of supervised training; return the loss and the largest weight change."""
    from codedance.policies.interface import Demonstration
    from codedance.policies.training.sft import SFTConfig, train_sft
    from safetensors.torch import load_file

    picture, returned = noise(5, 60, 60), noise(6, 30, 40)
    task = Task("tiny/0", "tiny", "tiny", "train", "How many?", (picture,), answer="2")
    shown = (
        Message("user", (picture, "How many?")),
        Message("assistant", ("<code>show(crop)</code>",)),
        Message("user", ("<tool_response>", returned, "</tool_response>")),
        Message("assistant", ("<answer>2</answer>",)),
    )
    losses: list[float] = []
    final = train_sft(
        folder / "model",
        [Demonstration(task, shown)],
        SFTConfig(steps=1, batch_size=1, warmup_steps=0),
        folder=folder / "sft",
        on_step=lambda _, figures: losses.append(figures["loss"]),
    )
    before = load_file(folder / "model" / "model.safetensors")
    after = load_file(final / "model.safetensors")
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    return losses[0], moved
