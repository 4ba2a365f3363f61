"""``codedance runs``: what was run, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .options import Json, Most, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..store import StageRun

_HEAD = ("run", "stage", "preset", "status", "seed", "worked")


def runs(
    stage: Stage = None,
    limit: Most = 20,
    json: Json = False,
) -> None:
    """List the runs and their stages, newest first."""
    from ..desk import open_desk
    from .document import document
    from .output import print_columns, run_document, say

    with document(json) as publish, open_desk(track=False) as desk:
        chosen = {} if stage is None else {"stage": stage}
        found = desk.store.lineage.find(**chosen)
        shown = found[: limit or None]
        publish([run_document(run) for run in shown])
        if not found:
            say("there is no run yet; `codedance run` makes one")
            return
        print_columns([_HEAD, *_rows(shown)])
        if len(found) > len(shown):
            say(f"… and {len(found) - len(shown)} earlier; --limit 0 shows all")


def _rows(found: Sequence[StageRun]) -> list[tuple[str, ...]]:
    from ..progress import format_seconds

    return [
        (
            run.id,
            run.stage,
            run.preset,
            run.status,
            str(run.seed),
            format_seconds(run.seconds) if run.seconds else "",
        )
        for run in found
    ]
