"""Digests of stored rows: over all of their content that readers depend on.

A trajectory has two: one over what happened, which never changes, and one over its verdicts
(accuracy and scores), which is renewed when it is graded again. A policy's generation times and
the sessions that were lost are measurements and are left out; so is a row's number.
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
    {
        *("id", "accuracy", "digest", "verdict_digest", "trajectory"),
        *("generation_seconds", "sessions_lost"),  # measurements
    }
)


def _columns(table: type[Base]) -> tuple[tuple[str, bool], ...]:
    """Return the columns that the digest covers, and whether each is a float."""
    found: Table = table.__table__  # pyright: ignore[reportAssignmentType]
    return tuple((c.name, isinstance(c.type, Float)) for c in found.columns if c.name not in _FREE)


_HEAD, _TURN, _EXECUTION = (_columns(t) for t in (TrajectoryRow, TurnRow, ExecutionRow))


def trajectory_digest(
    head: Mapping[str, Any],
    turns: Sequence[Mapping[str, Any]],
    executions: Sequence[Mapping[str, Any]],
) -> str:
    """Return the digest of a trajectory's rows, with turns and executions in order.

    Args:
        head: Row of ``trajectories``, including stage run, phase, step and sample.
        turns: Rows of ``turns``.
        executions: Rows of ``executions``.
    """
    content = [
        _plain(_HEAD, head),
        [_plain(_TURN, turn) for turn in turns],
        [_plain(_EXECUTION, run) for run in executions],
    ]
    return content_digest(content)


def row_digest(row: Mapping[str, Any]) -> str:
    """Return the digest of a row of any table, without its ``digest`` and NULL columns.

    A column that a later migration adds therefore changes no earlier digest.
    """
    counted = {
        name: _same_everywhere(value)
        for name, value in row.items()
        if value is not None and name != "digest"
    }
    return content_digest(counted)


def verdict_digest(accuracy: float | None, scores: Iterable[tuple[str, str, float | None]]) -> str:
    """Return the digest of a trajectory's accuracy and (scoring, term, value) triples."""
    terms = sorted(
        (scoring, term, None if value is None else float(value)) for scoring, term, value in scores
    )
    return content_digest([None if accuracy is None else float(accuracy), terms])


def content_digest(content: object) -> str:
    """Return the digest of plain values by their JSON form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _same_everywhere(value: object) -> object:
    """Return a value as any database returns it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        return json.loads(json.dumps(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if float(value) == value else value  # a float column returns 0.0
    return value


def _plain(columns: Iterable[tuple[str, bool]], row: Mapping[str, Any]) -> list[Any]:
    """Return a row's values in the columns' order, as any database returns them."""
    values: list[Any] = []
    for name, is_fraction in columns:
        value = row[name]
        if is_fraction and value is not None:
            value = float(value)
        elif isinstance(value, bytes):
            value = hashlib.sha256(value).hexdigest()
        values.append(value)
    return values
