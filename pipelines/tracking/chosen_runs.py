"""The runs that a user names, with their stages, in the order to show them."""

from __future__ import annotations

from collections.abc import Sequence

from ..store.lineage import PIPELINE, Lineage, StageRun


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
