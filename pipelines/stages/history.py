"""Pass records of tasks in earlier trainings: the start of a curriculum by learnability."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from ...policies.training.grpo.task_order.curriculum import History, PassRecord
from ..runs.context import StageContext
from ..store.store import Store

FILE_NAME = "history.json"
MOST_RUNS = 5
"""Largest number of earlier trainings that are read, the newest first."""


def load_history(context: StageContext, task_ids: Collection[str], *, phase: str) -> History:
    """Return each task's pass record in other GRPO runs of the store, fixed at the stage's start.

    A resumed run reads the records that it began with, regardless of later trainings.
    """
    path = context.folder / FILE_NAME
    if not path.is_file():
        others = [run.id for run in context.store.lineage.find(stage="grpo")]
        others = [run_id for run_id in others if run_id != context.run.id][:MOST_RUNS]
        _write(path, _read_store(context.store, others, set(task_ids), phase))
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {task_id: PassRecord(right, scored) for task_id, (right, scored) in rows.items()}


def _read_store(
    store: Store, runs: Collection[str], task_ids: Collection[str], phase: str
) -> dict[str, list[float]]:
    records: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for run_id in runs:
        for episode in store.episodes(run_id, phase):
            if episode.task_id in task_ids and episode.is_valid and episode.accuracy is not None:
                records[episode.task_id][0] += episode.accuracy
                records[episode.task_id][1] += 1.0
    return dict(records)


def _write(path: Path, records: dict[str, list[float]]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(records, sort_keys=True), encoding="utf-8")
    fresh.replace(path)
