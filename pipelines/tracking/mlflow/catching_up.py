"""Brings MLflow up to date with runs that are over, or that another process works on."""

from __future__ import annotations

from collections.abc import Sequence

from ...config.home import Home
from ...store.lineage import PIPELINE, Lineage, StageRun
from ...store.store import Store
from ..tracker import read_page
from .address import Address, named_place
from .sync import MlflowSync, Say


def chosen_runs(lineage: Lineage, names: Sequence[str]) -> list[StageRun]:
    """Return the named runs with their stage runs, or all runs, in the order to write them.

    Pipeline runs come first, as their stages stand below them; checkpoints come before evaluations.

    Raises:
        UnknownRunError: A name matches no run, or more than one.
    """
    chosen = {} if names else {run.id: run for run in lineage.find()}
    for run in map(lineage.get, names):
        made = lineage.find(parent=run.id)
        adopted = [one for name in run.stage_runs.values() for one in lineage.find(id=name)]
        chosen |= {one.id: one for one in (run, *made, *adopted)}
    return sorted(chosen.values(), key=lambda run: (run.stage != PIPELINE, run.started_at))


def sync_runs(home: Home, store: Store, runs: Sequence[StageRun], say: Say) -> int:
    """Bring MLflow up to date with runs, each in the experiment that it was begun with.

    Returns:
        Number of things that MLflow rejected.

    Raises:
        Exception: Whatever MLflow's client raises where the server does not answer.
    """
    syncs: dict[Address, MlflowSync] = {}
    for run in runs:
        place = read_page(home.stages / run.id).place | named_place()
        address = Address(home.mlflow_uri, **place)
        if address not in syncs:
            syncs[address] = MlflowSync(home, store, address, say)
        syncs[address].sync(run.id)
        say(f"{run.id}: up to date in MLflow")
    return sum(one.refused for one in syncs.values())
