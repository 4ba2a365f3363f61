"""``codedance runs``: list of runs, newest first."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .options import Json, Most, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..store.lineage import StageRun

_HEAD = ("run", "stage", "preset", "status", "seed", "started UTC", "ended", "took")
_LEAST_SHOWN = ("stage", "preset", "seed")
"""Columns left out, in this order, if a line has no room: a run's id begins with the first two."""
_WIDTH = 80


def runs(
    stage: Stage = None,
    limit: Most = 20,
    json: Json = False,
) -> None:
    """List the runs and their stages, newest first, with begin, end and duration.

    Times are in UTC. The duration of a stage is its working time without pauses; that of a run of
    the whole pipeline is the time from its begin to its end.
    """
    from ..runs.session import open_session
    from .document import document
    from .output import print_columns, run_document, say

    with document(json) as publish, open_session(track=False) as session:
        chosen = {} if stage is None else {"stage": stage}
        found = session.store.lineage.find(**chosen)
        shown = found[: limit or None]
        publish([run_document(run) for run in shown])
        if not found:
            say("there is no run yet; `codedance run` starts one")
            return
        now = datetime.now(UTC).replace(tzinfo=None)
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
        print_columns(fitting([_HEAD, *(_row(run, now) for run in shown)], width))
        if len(found) > len(shown):
            say(f"… and {len(found) - len(shown)} earlier; --limit 0 shows all")


def fitting(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Return the rows without the columns that do not fit a line of ``width``."""
    shown = list(range(len(rows[0])))
    for name in _LEAST_SHOWN:
        widest = [max(len(row[column]) for row in rows) for column in shown]
        if sum(widest) + 2 * (len(shown) - 1) <= width:
            break
        shown.remove(rows[0].index(name))
    return [[row[column] for column in shown] for row in rows]


def _row(run: StageRun, now: datetime) -> tuple[str, ...]:
    from ..runs.progress import format_seconds

    end = run.ended_at or now
    took = run.seconds or max((end - run.started_at).total_seconds(), 0.0)
    return (
        run.id,
        run.stage,
        run.preset,
        run.status,
        str(run.seed),
        f"{run.started_at:%m-%d %H:%M}",
        _ended(run),
        format_seconds(took),
    )


def _ended(run: StageRun) -> str:
    """Return when a run ended, with the day if it differs from the day it began."""
    if run.ended_at is None:
        return "–"
    is_same_day = run.ended_at.date() == run.started_at.date()
    return f"{run.ended_at:%H:%M}" if is_same_day else f"{run.ended_at:%m-%d %H:%M}"
