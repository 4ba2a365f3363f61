"""Checks of the settings of distillation, without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ....inference.endpoint import OPENAI_PREFIX
from ....inference.model_files import OWN_NAMES
from ....inference.server_words import without_credentials

_NO_MODELS = OWN_NAMES - {"nano"}


def check_distillation(teacher: str | None, weight: float, reward_weight: float) -> None:
    """Reject settings of distillation that contradict each other.

    Args:
        teacher: Folder or hub id of the teacher; None for none.
        weight: Weight of its term.
        reward_weight: Weight of the rewards' advantages.

    Raises:
        ValueError: A teacher without a weight or a weight without a teacher, nothing that would be
            learnt from, or a teacher that gives no log-probabilities of given tokens.
    """
    for name, value in (("distillation_weight", weight), ("reward_weight", reward_weight)):
        if not (math.isfinite(value) and value >= 0.0):
            raise ValueError(f"grpo.{name} must be at least 0, got {value}")
    if teacher is None and weight > 0.0:
        raise ValueError(
            f"grpo.distillation_weight {weight:g} needs a grpo.teacher, got none: name a model "
            "folder or hub id"
        )
    if teacher is not None and weight == 0.0:
        raise ValueError(
            f"grpo.teacher {teacher} would have no effect with a grpo.distillation_weight of 0: "
            "set one, such as 1.0"
        )
    if teacher is None and reward_weight == 0.0:
        raise ValueError(
            "grpo.reward_weight 0 leaves nothing to learn from: set grpo.teacher and "
            "grpo.distillation_weight, or a weight above 0"
        )
    if teacher is not None and (teacher in _NO_MODELS or teacher.startswith(OPENAI_PREFIX)):
        raise ValueError(
            f"grpo.teacher is a model folder, a hub id or nano, got {teacher}: a teacher has to "
            "score the exact tokens of another model"
        )


def check_teacher_servers(
    urls: Sequence[str],
    teacher: str | None,
    temperature: float,
    *,
    of_replies: Sequence[str] = (),
) -> None:
    """Reject servers of a teacher that cannot be used.

    Args:
        urls: Base URLs of the servers; empty for none.
        teacher: Folder or hub id of the teacher; None for none.
        temperature: Temperature at which the trained model samples.
        of_replies: Base URLs of the servers that have the trained model's weights.

    Raises:
        ValueError: No teacher is named, the temperature is not the one that vLLM scores at, or a
            server would have to have the weights of two models.
    """
    if not urls:
        return
    if teacher is None:
        raise ValueError("rollout.teacher_urls need a grpo.teacher: name the model that they have")
    if temperature != 1.0:
        raise ValueError(
            f"rollout.teacher_urls need a grpo.temperature of 1.0, got {temperature}: vLLM scores "
            "given tokens at temperature 1; leave them out to load the teacher in the training"
        )
    shared = {_base(url) for url in urls} & {_base(url) for url in of_replies}
    if shared:
        raise ValueError(
            f"{min(shared)} is among rollout.urls and rollout.teacher_urls: a server has the "
            "weights of one model; start one more for the teacher"
        )


def _base(url: str) -> str:
    """Return a server's URL without what can be left out."""
    return without_credentials(url).rstrip("/").removesuffix("/v1").rstrip("/")
