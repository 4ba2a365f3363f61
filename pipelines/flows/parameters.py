"""What a person may say when a flow is started, checked before it is queued.

Prefect turns these types into the form of its page and into the check of ``--param``: a preset that
does not exist, or a seed below 0, is refused with its reason and no run is made.
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
    preset: Parameters, from flows.yaml. Empty: those of the newest run.
    seed: Of every draw. Empty: that of the newest run.
    suite: A suite, or the path of your own tasks (a .jsonl file). Empty: the preset's.
    refresh: Do it again, even where a finished result has the same content.
    from_run: Run whose results are the inputs: its id, or latest. Empty: found by lineage.
"""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def explained(function: _Function) -> _Function:
    """Add to a flow's docstring what its parameters mean: Prefect's form shows it."""
    function.__doc__ = f"{function.__doc__}{EXPLANATIONS}"
    return function


def name_run() -> str:
    """Return a flow run the name that it is listed by: ``grpo-quick-seed-0``, ``sft-newest``."""
    given = flow_run.parameters
    name = f"{flow_run.flow_name}-{given.get('preset') or 'newest'}"
    return name if given.get("seed") is None else f"{name}-seed-{given['seed']}"


def preset_of(run: StageRun) -> Preset:
    """Return the preset of a run that was made here, where names are checked."""
    return cast("Preset", run.preset)
