"""How old the weights are that a token was sampled from, by the name of their version."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .....envs.types import Trajectory
from ..mismatch import UNKNOWN

_STEP_NAME = re.compile(r"step-(\d+)\b")
_NAMELESS = "of no version"


def steps_behind(step: int, version: str) -> int:
    """Return how many steps a version of the weights is behind; `UNKNOWN` for names not ours.

    >>> steps_behind(5, "step-3")
    2
    """
    found = _STEP_NAME.match(version)
    return UNKNOWN if found is None else step - int(found[1])


def strange_version(trajectories: Sequence[Trajectory], step: int, *, most: int) -> str | None:
    """Return a version of the weights that a step must not learn from; None where there is none.

    Args:
        trajectories: Trajectories of a group; those without own tokens have no version.
        step: Step that is to learn from them.
        most: Largest number of steps that weights may be behind.
    """
    for one in trajectories:
        if one.tokens is None or not any(one.tokens.mask):
            continue
        for span in one.tokens.weight_versions:
            if not 0 <= steps_behind(step, span.version) <= most:
                return span.version
        if not one.tokens.weight_versions:
            return _NAMELESS
    return None
