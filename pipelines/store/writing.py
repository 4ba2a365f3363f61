"""Writes tasks and trajectories: what is stored already is not stored again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from .database import insert_missing
from .rows import Row, TrajectoryRows
from .schema import ExecutionRow, ScoreRow, TaskRow, TrajectoryRow, TurnRow

Item = TypeVar("Item")
ORIGINAL = "original"
BATCH = 400
"""Ids in one IN (…): below every database's limit."""


def batches(items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    """Cut a list into parts that fit into one query."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def insert_tasks(rows: Mapping[str, Row], session: Session) -> None:
    """Insert the missing tasks, always in one order: so no two writers lock each other."""
    missing = set(rows)
    for batch in batches(list(rows)):
        missing.difference_update(
            session.scalars(select(TaskRow.key).where(TaskRow.key.in_(batch)))
        )
    if missing:
        insert_missing(session, TaskRow, [rows[key] for key in sorted(missing)])


def insert_new(heads: Sequence[Row], parts: Sequence[TrajectoryRows], session: Session) -> int:
    """Insert the trajectories, all of one phase and step, that are not stored yet."""
    known = _known(session, heads)
    new = [n for n, h in enumerate(heads) if (h["task_key"], h["sample"]) not in known]
    if new:
        _insert(session, [heads[n] for n in new], [parts[n] for n in new])
    return len(new)


def _known(session: Session, heads: Sequence[Row]) -> set[tuple[str, int]]:
    """Give task and sample of those rows, all of one phase and step, that are stored already."""
    found: set[tuple[str, int]] = set()
    for batch in batches(list(dict.fromkeys(head["task_key"] for head in heads))):
        query = select(TrajectoryRow.task_key, TrajectoryRow.sample).where(
            TrajectoryRow.stage_run == heads[0]["stage_run"],
            TrajectoryRow.phase == heads[0]["phase"],
            TrajectoryRow.step == heads[0]["step"],
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
