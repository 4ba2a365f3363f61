"""A user's own reward terms: one decorated function each, added to every preset by its name."""

from __future__ import annotations

import math
from collections.abc import Callable

from .types import Trajectory

RewardTerm = Callable[[Trajectory], float]
"""A pure function of what a scored trajectory recorded."""

_BUILT_IN = frozenset({"accuracy", "format", "tool_sequence", "tool_turn"})
_ADDED: dict[str, RewardTerm] = {}


def register_reward_term(name: str, *, weight: float = 1.0) -> Callable[[RewardTerm], RewardTerm]:
    """Add the decorated function, times ``weight``, to the reward of every scored trajectory.

    It falls due at the end of an episode. Registering a name again replaces the term.

    Args:
        name: Key of the term in ``reward_terms``.
        weight: Factor of the function's value.

    Raises:
        ValueError: The name is one of the built-in terms. Later, from scoring: the function gave
            a value that is not finite.

    >>> @register_reward_term("brevity", weight=-0.01)
    ... def brevity(trajectory):
    ...     return len(trajectory.turns)
    >>> unregister_reward_term("brevity")
    """
    if name in _BUILT_IN or not name:
        raise ValueError(f"{name!r} is a built-in reward term; choose another name")

    def register(term: RewardTerm) -> RewardTerm:
        _ADDED[name] = lambda trajectory: _weighted(name, weight, term(trajectory))
        return term

    return register


def unregister_reward_term(name: str) -> None:
    """Take a user's term out again; an unknown name is a `KeyError`."""
    del _ADDED[name]


def added_terms() -> dict[str, RewardTerm]:
    """Give the registered terms by name, weights included, in order of registration."""
    return dict(_ADDED)


def _weighted(name: str, weight: float, value: float) -> float:
    result = weight * float(value)
    if not math.isfinite(result):
        raise ValueError(f"reward term {name!r} gave {value!r}; a term is a finite number")
    return result
