"""From what the user says (preset, seed, task file, run to go on from) to an `Order`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..flows_file import load_preset
from ..settings import Preset
from ..store import StageRun
from ..store.lineage import PIPELINE
from .runner import Order, StageError, begin_pipeline

if TYPE_CHECKING:
    from ..desk import Desk


def make_order(
    preset: str, *, seed: int = 0, suite: str | None = None, fresh: bool = False
) -> Order:
    """Read a preset and put the user's changes into it.

    Raises:
        SettingsError: flows.yaml is wrong or has no such preset.
        StageError: The task file is missing.
    """
    settings = load_preset(preset)
    if suite is not None:
        settings = settings.model_copy(update={"suite": _suite(suite)})
    return Order(preset, settings, seed, fresh)


def order_of(run: StageRun, *, fresh: bool = False) -> Order:
    """Give the order that a pipeline run was made by."""
    return Order(run.preset, Preset.model_validate(run.parameters), run.seed, fresh)


def pipeline_run(desk: Desk, order: Order, from_run: str | None) -> StageRun:
    """Give the pipeline run to work for: the named one, else the one this order goes on with."""
    if from_run is None:
        return begin_pipeline(desk, order)
    return find_pipeline(desk, from_run)


def find_pipeline(desk: Desk, name: str) -> StageRun:
    """Give a pipeline run by its own id, ``latest``, or the id of one of its stage runs."""
    run = desk.store.lineage.get(name)
    if run.stage != PIPELINE and run.parent is not None:
        run = desk.store.lineage.get(run.parent)
    if run.stage != PIPELINE:
        raise StageError(f"{name} does not belong to a pipeline run")
    return run


def _suite(name: str) -> str:
    if not name.endswith(".jsonl"):
        return name
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise StageError(f"there is no task file {path}")
    return str(path)
