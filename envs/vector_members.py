"""What one member of the vector environment gave: its step, its loss, or its error by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from ..sandbox import SandboxError
from ..sandbox.types import SandboxUnavailableError
from .rewards.presets import RewardPreset
from .rewards.registry import own_term_names
from .rewards.terms import TERMS
from .types import Ending
from .visual_code import Observation, VisualCodeEnv

_log = logging.getLogger(__name__)

Member = tuple[Observation, float, bool, bool, dict[str, Any]]
"""What one member's step gave."""


def unless_lost(env: VisualCodeEnv, act: Callable[[], Member]) -> Member:
    """Act for a member; what its sandbox fails is lost, every other exception is raised.

    Raises:
        SandboxUnavailableError: This machine lacks the backend: not this member's loss alone.
    """
    try:
        return act()
    except SandboxUnavailableError:
        raise
    except SandboxError:
        _log.exception("the sandbox failed a member of the vector environment")
        return lost_member(env.episode.task.id if env.has_begun else "", env.preset)


def lost_member(task_id: str, preset: RewardPreset) -> Member:
    """Return the step of a member that our infrastructure lost."""
    info = {
        "task_id": task_id,
        "family": "",
        "difficulty": "",
        "turn": 0,
        "outcome": None,
        "ending": Ending.INFRASTRUCTURE.value,
        "is_success": False,
        "is_valid": False,
        "reward_terms": dict.fromkeys((*TERMS, *own_term_names(preset)), 0.0),
    }
    return {"text": "", "images": ()}, 0.0, False, True, info


def named_error(error: BaseException, place: int) -> BaseException:
    """Return the exception with the member's number before its words, its type as it was.

    Words that an exception does not take from one string (those of the operating system, of
    `KeyError`) are left alone; a note below the traceback names the member in every case.
    """
    name = f"environment {place}"
    if len(error.args) == 1 and isinstance(error.args[0], str):
        plain = error.args[0]
        if str(error) == plain and not plain.startswith(f"{name}: "):
            error.args = (f"{name}: {plain}",)
    error.add_note(f"raised by {name} of the vector environment")
    return error


def places_over(members: Sequence[Member]) -> list[int]:
    """Return the places of those whose episode is over."""
    return [place for place, member in enumerate(members) if member[2] or member[3]]
