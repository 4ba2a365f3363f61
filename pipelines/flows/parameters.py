"""Parameters of the flows, validated before a run is queued.

Prefect derives the form on its page and the check of ``--param`` from these types: a preset that
flows.yaml does not have or a negative seed is refused with a reason, and no run is created.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from prefect.runtime import flow_run
from pydantic import Field

from ..config.flows_file import load_flows_file
from ..config.yaml_file import SettingsError
from ..store.lineage import PIPELINE


def _preset_names() -> dict[str, Any]:
    """Return the presets of flows.yaml for the form; a file that is wrong is refused elsewhere."""
    try:
        return {"enum": list(load_flows_file().presets)}
    except SettingsError:
        return {}


Preset = Annotated[str, Field(min_length=1, json_schema_extra=_preset_names())] | None
Seed = Annotated[int, Field(ge=0)] | None
Suite = Annotated[str, Field(min_length=1)] | None
Refresh = bool
FromRun = Annotated[str, Field(min_length=1)] | None
Overrides = dict[str, Any] | None
Run = Annotated[str, Field(min_length=1)] | None

EXPLANATIONS = """

Args:
    preset: Preset of flows.yaml. Empty: that of the newest run; of the whole pipeline, quick.
    seed: Random seed of every draw. Empty: that of the newest run; of the whole pipeline, 0.
    suite: A suite, or the path of your own tasks (a .jsonl file). Empty: that of the preset.
    refresh: Rerun stages, even where a finished result has the same inputs.
    from_run: Run whose results are the inputs: its id, or latest. Empty: found by lineage.
    overrides: Values over the preset's, by their place, such as {"grpo.steps": 300}.
    run: Pipeline run to continue with its original parameters; excludes all other parameters.
"""
_Function = TypeVar("_Function", bound=Callable[..., Any])


def explained(function: _Function) -> _Function:
    """Add the descriptions of the parameters to a flow's docstring, for Prefect's form."""
    function.__doc__ = f"{function.__doc__}{EXPLANATIONS}"
    return function


def name_run() -> str:
    """Return the name of the current flow run, such as ``grpo-quick-seed-0`` or ``sft-newest``.

    The run of a stage that continues a pipeline run is named after that.
    """
    given = flow_run.parameters
    if given.get("run"):
        return f"{flow_run.flow_name}-{given['run']}"
    default = "quick" if flow_run.flow_name == PIPELINE else "newest"
    name = f"{flow_run.flow_name}-{given.get('preset') or default}"
    return name if given.get("seed") is None else f"{name}-seed-{given['seed']}"
