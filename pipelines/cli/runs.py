"""``codedance runs``: what was run, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import completion
from .options import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..store import StageRun

STAGES = ("pipeline", "curate", "sft", "grpo", "evaluate")
_HEAD = ("run", "stage", "preset", "status", "seed", "worked")


def runs(
    stage: Annotated[
        str | None,
        typer.Option(
            help="Only these: pipeline, curate, sft, grpo or evaluate.",
            autocompletion=completion.one_of(*STAGES),
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    json: Json = False,
) -> None:
    """List the runs and their stages, newest first."""
    from ..desk import open_desk
    from .document import document
    from .output import print_columns, run_document, say

    if stage is not None and stage not in STAGES:
        raise typer.BadParameter(f"one of {', '.join(STAGES)}, got {stage!r}", param_hint="--stage")
    with document(json) as publish, open_desk(track=False) as desk:
        chosen = {} if stage is None else {"stage": stage}
        found = desk.store.lineage.find(**chosen)
        publish([run_document(run) for run in found[:limit]])
        if not found:
            say("there is no run yet; `codedance run` makes one")
            return
        print_columns([_HEAD, *_rows(found[:limit])])
        if len(found) > limit:
            say(f"… and {len(found) - limit} earlier; --limit shows more")


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
