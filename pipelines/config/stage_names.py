"""Names that a stage can have: its command, flow, section and keys in the store share one name."""

from __future__ import annotations

import keyword
import re

NAME = re.compile(r"[a-z][a-z0-9_]{0,29}")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMMANDS = _words(
    "ask attack_reward cluster compare data doctor emergence flows metrics mlflow pipeline plan "
    "play probe report rescore run runs sandbox scale serve store ui view"
)
"""Our commands, and programs that may become one."""
_KEYS = _words(
    "extends fresh latest lost lost_inputs overrides policies seconds stage suite suite_digest"
)
"""Keys of ours where a stage's name is one too: in presets, in parameters and outputs of runs."""
_SECTIONS = _words("alarms interface max_new_tokens rollout server tracking")
"""Sections and values of a preset; `name_problem` also asks the model itself."""
_FLOWS = _words(
    "annotations asyncio at_pipeline checking deploying explained find_stage finish_pipeline flow "
    "flow_run is_finished_by links name_run on_page open_pipeline open_session outliving_worker "
    "page parameters publish_report publishing reopen_pipeline replace stage_names tags watching "
    "work worker_death"
)
"""Attributes of the module of the flows, which Prefect would find in place of the stage's flow."""
RESERVED = _COMMANDS | _KEYS | _SECTIONS | _FLOWS
"""Names that have another meaning; a test compares them with the code that gives it."""


def is_usable(name: str) -> bool:
    """Return whether a stage may have a name, as far as it is known without loading pydantic."""
    return bool(NAME.fullmatch(name)) and name not in RESERVED and not keyword.iskeyword(name)


def name_problem(name: str) -> str:
    """Return why a stage cannot have a name, and what to change; empty if it can."""
    if not NAME.fullmatch(name):
        return (
            f"a stage cannot be called {name!r}: use lower-case letters, digits and underscores, "
            "beginning with a letter, at most 30"
        )
    if not is_usable(name) or _is_of_presets(name):
        return f"a stage cannot be called {name!r}, which has another meaning: rename it"
    return ""


def _is_of_presets(name: str) -> bool:
    """Return whether a preset has such a value, or a method that a section would hide."""
    from .registry import BUILT_IN
    from .settings import Preset

    return name not in BUILT_IN and (name in Preset.model_fields or hasattr(Preset, name))
