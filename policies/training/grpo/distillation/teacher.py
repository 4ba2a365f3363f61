"""A teacher in this process: a frozen model that scores another model's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ....models.model_folder import load_token_model
from ....models.token_model import PicturedIds, TokenModel
from ...batches import micro_batches, pad_flags
from .shared_tokens import check_images


@dataclass(frozen=True, slots=True, eq=False)
class OwnIds:
    """A trajectory to score.

    Attributes:
        source: Token ids and images.
        completion_mask: Which ids the policy wrote, ``(length,)``.
    """

    source: PicturedIds
    completion_mask: Sequence[bool]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What a teacher made of a trajectory.

    Attributes:
        values: Log-probability of each own id, ``(own,)`` float32 in main memory; None where the
            teacher failed.
        reason: Why it failed; empty where it did not.
    """

    values: Tensor | None
    reason: str = ""


class Teacher(Protocol):
    """A model that scores the tokens of another one in the same contexts."""

    def score(self, trajectories: Sequence[OwnIds]) -> list[Scored]:
        """Return the log-probabilities of each trajectory's own ids, in order.

        A failure of our infrastructure loses its trajectory alone.

        Raises:
            TeacherMismatchError: The teacher reads the ids as something else.
        """
        ...


class LocalTeacher:
    """A frozen model in this process, in the precision of its checkpoint.

    Tokens are scored under the distribution that the student's are sampled from: at its temperature
    and without the ids that are never sampled.

    Args:
        model: Model.
        name: Name for messages.
        temperature: Temperature of sampling; None for the model's own distribution.
        max_tokens: Memory bound: padded tokens per forward pass.
    """

    def __init__(
        self, model: TokenModel, *, name: str, temperature: float | None, max_tokens: int
    ) -> None:
        self.model = model
        self._name = name
        self._temperature = temperature
        self._max_tokens = max_tokens
        model.model.requires_grad_(False).eval()

    @classmethod
    def of_folder(cls, source: str | Path, *, temperature: float, max_tokens: int) -> LocalTeacher:
        """Load a model folder or hub id.

        Raises:
            ModelFolderError: The folder lacks a part, or the hub id could not be loaded.
        """
        model = load_token_model(source)
        return cls(model, name=str(source), temperature=temperature, max_tokens=max_tokens)

    @torch.no_grad()
    def score(self, trajectories: Sequence[OwnIds]) -> list[Scored]:
        """Score trajectories; see `Teacher`."""
        lengths = [len(one.completion_mask) for one in trajectories]
        found: dict[int, Scored] = {}
        for micro in micro_batches(lengths, max_tokens=self._max_tokens):
            chosen = [trajectories[index] for index in micro]
            found |= zip(micro, self._score_batch(chosen), strict=True)
        return [found[index] for index in range(len(trajectories))]

    def _score_batch(self, trajectories: Sequence[OwnIds]) -> list[Scored]:
        for one in trajectories:
            check_images(self.model.encoder, one.source.ids, one.source.images, name=self._name)
        batch = self.model.pad([one.source for one in trajectories])
        masks = [one.completion_mask for one in trajectories]
        own = pad_flags(masks, length=batch.ids.shape[1])
        scores = self.model.log_probabilities(batch, own, temperature=self._temperature)
        parts = scores.cpu().split([sum(mask) for mask in masks])
        return [_finite(part) for part in parts]


def _finite(values: Tensor) -> Scored:
    if bool(values.isfinite().all()):
        return Scored(values)
    return Scored(None, "the teacher computed log-probabilities that are not finite")
