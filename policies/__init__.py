"""What acts and what learns: models, rollouts, advantages, and the SFT and GRPO trainers.

Importing this room loads no torch; the names that need it are imported when first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .interface import Conversation, Demonstration, Policy, PolicyUnavailableError, Reply, Sampling

if TYPE_CHECKING:
    from .loading import load_policy
    from .rollouts.runner import rollout
    from .scripted.oracle import register_program
    from .training.grpo.config import GRPOConfig
    from .training.grpo.loop import train_grpo
    from .training.sft import SFTConfig, train_sft
    from .training.training_state import TrainingInterrupted

__all__ = [
    "Conversation",
    "Demonstration",
    "GRPOConfig",
    "Policy",
    "PolicyUnavailableError",
    "Reply",
    "SFTConfig",
    "Sampling",
    "TrainingInterrupted",
    "load_policy",
    "register_program",
    "rollout",
    "train_grpo",
    "train_sft",
]

_HOMES = {
    "GRPOConfig": ".training.grpo.config",
    "SFTConfig": ".training.sft",
    "TrainingInterrupted": ".training.training_state",
    "load_policy": ".loading",
    "register_program": ".scripted.oracle",
    "rollout": ".rollouts.runner",
    "train_grpo": ".training.grpo.loop",
    "train_sft": ".training.sft",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
