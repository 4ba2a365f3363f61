"""Results of a member of the vector environment: its step, its loss, or its error."""

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
"""Result of a member's step."""


def unless_lost(env: VisualCodeEnv, act: Callable[[], Member]) -> Member:
    """Call ``act`` for a member; return a lost step where its sandbox fails.

    Raises:
        SandboxUnavailableError: This machine lacks the backend, which affects all members.
    """
    try:
        return act()
    except SandboxUnavailableError:
        raise
    except SandboxError:
        _log.exception("the sandbox failed a member of the vector environment")
        return lost_member(env.episode.task.id if env.has_begun else "", env.preset)


def lost_member(task_id: str, preset: RewardPreset) -> Member:
    """Return the step of a member that was lost to an infrastructure failure."""
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
    """Return the exception, of unchanged type, with the member's number before its message.

    Messages that an exception does not take from one string (those of the operating system, of
    `KeyError`) are unchanged; a note below the traceback names the member in every case.
    """
    name = f"environment {place}"
    if len(error.args) == 1 and isinstance(error.args[0], str):
        plain = error.args[0]
        if str(error) == plain and not plain.startswith(f"{name}: "):
            error.args = (f"{name}: {plain}",)
    error.add_note(f"raised by {name} of the vector environment")
    return error


def places_over(members: Sequence[Member]) -> list[int]:
    """Return the indices of members whose episode is over."""
    return [place for place, member in enumerate(members) if member[2] or member[3]]
