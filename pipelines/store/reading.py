"""Read whole tasks and trajectories: rows of five tables, in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from ...envs.types import Task, Trajectory
from .rows import GetImage, read_task, read_trajectory
from .schema import ExecutionRow, ScoreRow, TaskRow, TrajectoryRow, TurnRow


def read_batch(
    session: Session, ids: Sequence[int], scoring: str, get: GetImage
) -> dict[int, Trajectory]:
    """Return trajectories by id, with the reward terms of one scoring."""
    turns: defaultdict[int, list[TurnRow]] = defaultdict(list)
    query = select(TurnRow).where(TurnRow.trajectory.in_(ids)).order_by(TurnRow.number)
    for turn in session.scalars(query):
        turns[turn.trajectory].append(turn)
    runs: defaultdict[int, dict[int, ExecutionRow]] = defaultdict(dict)
    for run in session.scalars(select(ExecutionRow).where(ExecutionRow.trajectory.in_(ids))):
        runs[run.trajectory][run.number] = run
    terms: defaultdict[int, dict[str, float | None]] = defaultdict(dict)
    chosen = ScoreRow.trajectory.in_(ids), ScoreRow.scoring == scoring
    for score in session.scalars(select(ScoreRow).where(*chosen)):
        terms[score.trajectory][score.term] = score.value
    heads = (
        select(TrajectoryRow, TaskRow)
        .join(TaskRow, TaskRow.key == TrajectoryRow.task_key)
        .where(TrajectoryRow.id.in_(ids))
    )
    return {
        row.id: read_trajectory(row, task, turns[row.id], runs[row.id], terms[row.id], get)
        for row, task in session.execute(heads).tuples()
    }


def read_tasks(
    session: Session, keys: Sequence[str], get: GetImage, *, with_images: bool
) -> dict[str, Task]:
    """Return tasks by key, with or without their images."""
    rows = session.scalars(select(TaskRow).where(TaskRow.key.in_(keys)))
    return {row.key: read_task(row, get, with_images=with_images) for row in rows}
