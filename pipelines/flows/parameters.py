"""Parameters of the flows, validated before a run is queued.

Prefect derives the form on its page and the check of ``--param`` from these types: an unknown
preset or a negative seed is refused with a reason, and no run is created.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar, cast

from prefect.runtime import flow_run
from pydantic import Field

from ..config.settings import PresetName
from ..store.lineage import StageRun

Preset = PresetName | None
Seed = Annotated[int, Field(ge=0)] | None
Suite = Annotated[str, Field(min_length=1)] | None
Refresh = bool
FromRun = Annotated[str, Field(min_length=1)] | None

EXPLANATIONS = """

Args:
    preset: Preset of flows.yaml. Empty: that of the newest run.
    seed: Random seed of every draw. Empty: that of the newest run.
    suite: A suite, or the path of your own tasks (a .jsonl file). Empty: that of the preset.
    refresh: Rerun stages, even where a finished result has the same inputs.
    from_run: Run whose results are the inputs: its id, or latest. Empty: found by lineage.
"""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def explained(function: _Function) -> _Function:
    """Add the descriptions of the parameters to a flow's docstring, for Prefect's form."""
    function.__doc__ = f"{function.__doc__}{EXPLANATIONS}"
    return function


def name_run() -> str:
    """Return the name of the current flow run, such as ``grpo-quick-seed-0`` or ``sft-newest``."""
    given = flow_run.parameters
    name = f"{flow_run.flow_name}-{given.get('preset') or 'newest'}"
    return name if given.get("seed") is None else f"{name}-seed-{given['seed']}"


def preset_of(run: StageRun) -> Preset:
    """Return the preset of a run of the store, whose name was validated when it began."""
    return cast("Preset", run.preset)
