"""Finished nodes of the experiment: the lineage's rows with the protocol's digest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from codedance.pipelines.store.lineage import Lineage, StageRun
from codedance.pipelines.store.store import Store

MARK = "claims"
"""Parameter of a stage run with the protocol's digest and the node of the plan."""
Records = Mapping[tuple[int, str], StageRun]
"""By seed and node: the finished run, or else the one to resume."""


def mark(digest: str, node: str) -> dict[str, dict[str, str]]:
    """Return the parameter that a node's run is recorded with."""
    return {MARK: {"protocol": digest, "node": node}}


def preset_name_of(preset: str) -> str:
    """Return the preset name in the lineage's rows of an experiment."""
    return f"claims-{preset}"


def read_records(store: Store, *, preset: str, digest: str) -> Records:
    """Return the begun runs of an experiment, of any version of the code."""
    found: dict[tuple[int, str], StageRun] = {}
    for run in _runs(store.lineage, preset):
        about = run.parameters.get(MARK, {})
        if about.get("protocol") != digest:
            continue
        place = (run.seed, str(about["node"]))
        if place not in found or (is_done(run) and not is_done(found[place])):
            found[place] = run
    return found


def other_digests(store: Store, *, preset: str, digest: str) -> set[str]:
    """Return the digests of other protocols with runs of the same preset."""
    digests = {run.parameters.get(MARK, {}).get("protocol") for run in _runs(store.lineage, preset)}
    return {str(one) for one in digests - {None, digest}}


def is_done(run: StageRun | None) -> bool:
    """Whether a run is finished, lacks no episode, and its model still exists."""
    if run is None or not run.is_complete:
        return False
    model = run.outputs.get("model")
    return model is None or Path(model).is_dir()


def _runs(lineage: Lineage, preset: str) -> list[StageRun]:
    return lineage.find(preset=preset_name_of(preset))
