"""The digest of a stored trajectory: over everything in its rows that nobody may change.

What may change stays out: the accuracy (it is graded again), the scores, and the row's number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Float, Table

from .schema import Base, ExecutionRow, TrajectoryRow, TurnRow

_FREE = frozenset({"id", "accuracy", "digest", "trajectory"})


def _columns(table: type[Base]) -> tuple[tuple[str, bool], ...]:
    """Give the columns that count, and whether each holds a fraction."""
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
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _plain(columns: Iterable[tuple[str, bool]], row: Mapping[str, Any]) -> list[Any]:
    """Give a row's values in the columns' order, as they come back from any database."""
    values: list[Any] = []
    for name, is_fraction in columns:
        value = row[name]
        if is_fraction and value is not None:
            value = float(value)
        elif isinstance(value, bytes):
            value = hashlib.sha256(value).hexdigest()
        values.append(value)
    return values
