"""Policies and training: models, rollouts, advantages, and the SFT and GRPO trainers.

Importing this package does not load torch; the names that need it are imported on first access.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loading import load_policy
    from .rollouts.runner import rollout
    from .training.grpo.advantages import group_advantages

__all__ = ["group_advantages", "load_policy", "rollout"]

_HOMES = {
    "group_advantages": ".training.grpo.advantages",
    "load_policy": ".loading",
    "rollout": ".rollouts.runner",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - type depends on the name
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
