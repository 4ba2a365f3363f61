"""Digests of stored rows: over everything in them that decides what a reader is told.

A trajectory has two: one over what happened, which nobody may change, and one over its verdicts
(accuracy and scores), which is taken again when it is graded again. Times that a policy took are
measured, not decided, and stay out; so does a row's number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Float, Table

from .schema import Base, ExecutionRow, TrajectoryRow, TurnRow

_FREE = frozenset(
    {"id", "accuracy", "digest", "verdict_digest", "trajectory", "generation_seconds"}
)


def _columns(table: type[Base]) -> tuple[tuple[str, bool], ...]:
    """Return the columns that count, and whether each holds a fraction."""
    found: Table = table.__table__  # pyright: ignore[reportAssignmentType]
    return tuple((c.name, isinstance(c.type, Float)) for c in found.columns if c.name not in _FREE)


_HEAD, _TURN, _EXECUTION = (_columns(t) for t in (TrajectoryRow, TurnRow, ExecutionRow))


def trajectory_digest(
    head: Mapping[str, Any],
    turns: Sequence[Mapping[str, Any]],
    executions: Sequence[Mapping[str, Any]],
) -> str:
    """Hash a trajectory's rows, turns and executions in their order.

    Args:
        head: The row of ``trajectories``, where it belongs included.
        turns: Its rows of ``turns``.
        executions: Its rows of ``executions``.
    """
    content = [
        _plain(_HEAD, head),
        [_plain(_TURN, turn) for turn in turns],
        [_plain(_EXECUTION, run) for run in executions],
    ]
    return content_digest(content)


def row_digest(row: Mapping[str, Any]) -> str:
    """Hash a row of any table; its own ``digest`` and what is NULL do not count.

    So a column that a later migration adds changes no digest that was taken before.
    """
    counted = {
        name: _same_everywhere(value)
        for name, value in row.items()
        if value is not None and name != "digest"
    }
    return content_digest(counted)


def verdict_digest(accuracy: float | None, scores: Iterable[tuple[str, str, float | None]]) -> str:
    """Hash what a trajectory was judged to be: its accuracy and (scoring, term, value) triples."""
    terms = sorted(
        (scoring, term, None if value is None else float(value)) for scoring, term, value in scores
    )
    return content_digest([None if accuracy is None else float(accuracy), terms])


def content_digest(content: object) -> str:
    """Hash plain values by their JSON form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _same_everywhere(value: object) -> object:
    """Return a value as it comes back from any database."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        return json.loads(json.dumps(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if float(value) == value else value  # a fraction's column gives 0.0
    return value


def _plain(columns: Iterable[tuple[str, bool]], row: Mapping[str, Any]) -> list[Any]:
    """Return a row's values in the columns' order, as they come back from any database."""
    values: list[Any] = []
    for name, is_fraction in columns:
        value = row[name]
        if is_fraction and value is not None:
            value = float(value)
        elif isinstance(value, bytes):
            value = hashlib.sha256(value).hexdigest()
        values.append(value)
    return values
