"""Write tasks and trajectories that are not stored yet, and replace lost trajectories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.orm import Session

from .connection.database import insert_missing
from .rows import Row, TrajectoryRows
from .schema import ExecutionRow, ScoreRow, TaskRow, TrajectoryRow, TurnRow

Item = TypeVar("Item")
ORIGINAL = "original"
BATCH = 400
"""Number of ids in one IN (…), below every database's limit."""


def batches(items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    """Return a sequence in parts that fit into one query."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def insert_tasks(rows: Mapping[str, Row], session: Session) -> None:
    """Insert the missing tasks, always in the same order to avoid deadlocks between writers."""
    missing = set(rows)
    for batch in batches(list(rows)):
        missing.difference_update(
            session.scalars(select(TaskRow.key).where(TaskRow.key.in_(batch)))
        )
    if missing:
        insert_missing(session, TaskRow, [rows[key] for key in sorted(missing)])


def insert_new(heads: Sequence[Row], parts: Sequence[TrajectoryRows], session: Session) -> int:
    """Insert the trajectories, all of one phase and step, that are not stored yet.

    A stored trajectory without a verdict was lost to infrastructure: a new one replaces it.
    """
    _forget_lost(session, heads)
    known = _known(session, heads)
    new = [n for n, h in enumerate(heads) if (h["task_key"], h["sample"]) not in known]
    if new:
        _insert(session, [heads[n] for n in new], [parts[n] for n in new])
    return len(new)


def _forget_lost(session: Session, heads: Sequence[Row]) -> None:
    places = {(head["task_key"], head["sample"]) for head in heads}
    lost: list[int] = []
    for batch in batches(sorted({key for key, _ in places})):
        query = select(TrajectoryRow.id, TrajectoryRow.task_key, TrajectoryRow.sample).where(
            *_same_phase(heads[0]),
            TrajectoryRow.task_key.in_(batch),
            TrajectoryRow.accuracy.is_(None),
        )
        rows = session.execute(query).tuples()
        lost += [number for number, key, sample in rows if (key, sample) in places]
    for batch in batches(lost):
        session.execute(delete(TrajectoryRow).where(TrajectoryRow.id.in_(batch)))


def _same_phase(head: Row) -> tuple[ColumnElement[bool], ...]:
    return (
        TrajectoryRow.stage_run == head["stage_run"],
        TrajectoryRow.phase == head["phase"],
        TrajectoryRow.step == head["step"],
    )


def _known(session: Session, heads: Sequence[Row]) -> set[tuple[str, int]]:
    """Return task and sample of those rows, all of one phase and step, that are already stored."""
    found: set[tuple[str, int]] = set()
    for batch in batches(list(dict.fromkeys(head["task_key"] for head in heads))):
        query = select(TrajectoryRow.task_key, TrajectoryRow.sample).where(
            *_same_phase(heads[0]),
            TrajectoryRow.task_key.in_(batch),
        )
        found.update(session.execute(query).tuples().all())
    return found


def _insert(session: Session, heads: list[Row], parts: list[TrajectoryRows]) -> None:
    statement = insert(TrajectoryRow).returning(TrajectoryRow.id, sort_by_parameter_order=True)
    ids = list(session.scalars(statement, heads))
    turns = [{**turn, "trajectory": n} for n, p in zip(ids, parts, strict=True) for turn in p.turns]
    executions = [
        {**run, "trajectory": n} for n, p in zip(ids, parts, strict=True) for run in p.executions
    ]
    scores = [
        {"trajectory": n, "scoring": ORIGINAL, "term": term, "value": value}
        for n, p in zip(ids, parts, strict=True)
        for term, value in p.scores.items()
    ]
    for table, rows in ((TurnRow, turns), (ExecutionRow, executions), (ScoreRow, scores)):
        if rows:
            session.execute(insert(table), rows)
