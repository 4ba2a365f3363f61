"""``codedance store``: inspect, verify, export and prune the trajectory store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import completion
from .exit_codes import FINDINGS
from .options import Json, Most, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..store.store import Store

store_app = typer.Typer(
    name="store", help="Inspect, verify, export and prune trajectories.", no_args_is_help=True
)
Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="Run to remove; a pipeline run includes its stages.",
        autocompletion=completion.runs,
    ),
]


@store_app.callback()
def store() -> None:
    """Inspect, verify, export and prune the trajectory store."""


@store_app.command("list")
def list_runs(
    stage: Stage = None,
    limit: Most = 20,
    json: Json = False,
) -> None:
    """List runs with their trajectories, newest first, and the size of the store."""
    from ..store.maintenance import listing
    from .document import document
    from .store_pages import list_lines, listed_document

    with document(json) as publish, _opened() as opened:
        found = opened.lineage.find(**({} if stage is None else {"stage": stage}))
        listed = listing.list_runs(opened, found[: limit or None])
        held = listing.holdings(opened)
        publish({"store": held, "runs": [listed_document(one) for one in listed]})
        _say_lines(list_lines(held, listed, len(found)))


@store_app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN|NUMBER",
            help="Run id, or number of a trajectory.",
            autocompletion=completion.runs,
        ),
    ] = "latest",
    json: Json = False,
) -> None:
    """Show a run with its phases, or one trajectory from its question to its rewards."""
    from ..data.exporting import read_whole
    from ..store.maintenance import listing
    from .document import document
    from .store_pages import listed_document, run_lines, trajectory_lines

    with document(json) as publish, _opened() as opened:
        if name.isdecimal():
            entry = read_whole(opened, int(name))
            publish(entry)
            _say_lines(trajectory_lines(entry, opened.images))
        else:
            (listed,) = listing.list_runs(opened, [opened.lineage.get(name)])
            publish(listed_document(listed))
            _say_lines(run_lines(listed))


@store_app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Target folder; it must not exist yet.")
    ],
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run", help="Run to export; may be repeated.", autocompletion=completion.runs
        ),
    ] = None,
    tokens: Annotated[bool, typer.Option(help="Include token ids and log-probabilities.")] = True,
    json: Json = False,
) -> None:
    """Export runs to a folder that any program can read: JSON Lines, and images as PNG.

    A pipeline run includes its stages; without --run it is the latest. docs/store.md describes the
    format.

    Images that are missing or were changed, and rows that cannot be read, are left out and named,
    and the exit code is 1.
    """
    from ..data import exporting
    from .document import document
    from .store_pages import export_lines

    with document(json) as publish, _opened() as opened:
        runs, broken = exporting.with_stages(opened, run or ["latest"])
        made = exporting.export(opened, runs, folder, broken=broken, with_tokens=tokens)
        publish({"runs": [one.id for one in runs], "exported": made})
        _say_lines(export_lines(made, runs))
    if made.broken:
        raise typer.Exit(FINDINGS)


@store_app.command()
def prune(
    run: Runs = None,
    older: Annotated[
        float | None,
        typer.Option("--older-than", min=0.0, help="Age in days; inputs of others stay."),
    ] = None,
    keep: Annotated[
        int, typer.Option(min=0, help="Newest intermediate checkpoints to keep per run.")
    ] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; else only list.")] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Only list, with sizes: as without --yes.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove runs with their checkpoints, and everything that no run needs any more.

    That is: tasks and images that no run names, folders of removed runs, training states of
    finished runs, old intermediate checkpoints. Final models, checkpoints that an unfinished run
    resumes from, and reports stay. Without --yes nothing is removed.
    """
    from datetime import UTC, datetime, timedelta

    from ..config.home import find_home
    from ..store.maintenance import checkpoints, pruning
    from .document import document
    from .store_pages import pruned_lines, swept_lines

    if yes and dry:
        raise typer.BadParameter("--yes removes and --dry-run does not", param_hint="--dry-run")
    now = datetime.now(UTC).replace(tzinfo=None)
    try:
        before = None if older is None else now - timedelta(days=older)
    except (OverflowError, ValueError):
        raise typer.BadParameter(
            f"a number of days, such as 30, got {older}", param_hint="--older-than"
        ) from None
    root = find_home().root
    with document(json) as publish, _opened() as opened:
        named = [opened.lineage.get(one) for one in run or ()]
        chosen = pruning.choose(opened.lineage, named, begun_before=before, root=root)
        done = pruning.prune(opened, chosen, is_dry=not yes, root=root)
        swept = checkpoints.sweep(
            opened.lineage, root, removed=done.runs, keep=keep, is_dry=not yes
        )
        publish({"is_done": yes, "pruned": done, "checkpoints": swept, "bytes": swept.size_bytes})
        _say_lines(swept_lines(swept, root, is_done=yes))
        _say_lines(pruned_lines(done, is_done=yes))


@store_app.command()
def verify(json: Json = False) -> None:
    """Verify every digest: images, rows, checkpoints, and the database itself.

    Exits with 1 if anything is wrong; changes nothing. Data stored before digests were introduced
    is counted as unknown.
    """
    from ..store.maintenance import verify as verifying
    from .document import document
    from .store_pages import verdict_lines

    with document(json) as publish, _opened() as opened:
        verdict = verifying.verify(opened, _count)
        publish({"is_whole": verdict.is_whole, "verdict": verdict})
        _say_lines(verdict_lines(verdict))
    if not verdict.is_whole:
        raise typer.Exit(FINDINGS)


def _opened() -> Store:
    """Open the store without anything else."""
    from ..config.home import find_home
    from ..store.connection.patience import Patience
    from ..store.store import open_store

    home = find_home()
    return open_store(home, Patience(min(home.store_wait_seconds, 30.0), _warn))


def _say_lines(lines: Iterable[str]) -> None:
    from .output import say

    for line in lines:
        say(line)


def _warn(text: str) -> None:
    from ...sandbox.plain_text import escape_controls

    print(escape_controls(text), file=sys.stderr, flush=True)  # noqa: T201


def _count(what: str, count: int) -> None:
    """Show the progress of a check in a terminal."""
    if sys.stderr.isatty():
        print(f"\r{count:,} {what}\033[K", end="\r", file=sys.stderr, flush=True)  # noqa: T201
