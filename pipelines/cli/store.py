"""``codedance store``: look into the trajectory store, check it, copy from it, make room in it."""

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
    name="store", help="Look into the trajectory store, check, copy, prune.", no_args_is_help=True
)
Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="What can go; a pipeline run takes its stages.",
        autocompletion=completion.runs,
    ),
]


@store_app.callback()
def store() -> None:
    """Look into the trajectory store, check it, copy from it, make room in it."""


@store_app.command("list")
def list_runs(
    stage: Stage = None,
    limit: Most = 20,
    json: Json = False,
) -> None:
    """List runs with their trajectories, newest first, and what the store holds."""
    from ..store.maintenance import listing
    from .document import document
    from .store_pages import list_lines, listed_document

    with document(json) as publish, _opened() as opened:
        found = opened.lineage.find(**({} if stage is None else {"stage": stage}))
        listed = listing.list_runs(opened, found[: limit or None])
        held = listing.holdings(opened)
        publish({"store": held, "runs": [listed_document(one) for one in listed]})
        _tell(list_lines(held, listed, len(found)))


@store_app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN|NUMBER",
            help="A run, or the number of a trajectory.",
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
            _tell(trajectory_lines(entry, opened.images))
        else:
            (listed,) = listing.list_runs(opened, [opened.lineage.get(name)])
            publish(listed_document(listed))
            _tell(run_lines(listed))


@store_app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Made for it; it must not be there yet.")
    ],
    run: Annotated[
        list[str] | None,
        typer.Option("--run", help="Which; may be repeated.", autocompletion=completion.runs),
    ] = None,
    tokens: Annotated[
        bool, typer.Option(help="Token ids and log-probabilities go with them.")
    ] = True,
    json: Json = False,
) -> None:
    """Copy runs into a folder that any program reads: JSON lines, and pictures as PNG.

    A pipeline run brings its stages; without --run it is the latest. docs/store.md tells the
    format.

    A picture that is missing or was changed, and a row that cannot be read, are left out and named,
    and the exit code is 1.
    """
    from ..data import exporting
    from .document import document
    from .store_pages import export_lines

    with document(json) as publish, _opened() as opened:
        runs, broken = exporting.with_stages(opened, run or ["latest"])
        made = exporting.export(opened, runs, folder, broken=broken, with_tokens=tokens)
        publish({"runs": [one.id for one in runs], "exported": made})
        _tell(export_lines(made, runs))
    if made.broken:
        raise typer.Exit(FINDINGS)


@store_app.command()
def prune(
    run: Runs = None,
    older: Annotated[
        float | None, typer.Option("--older-than", min=0.0, help="Days; what others read stays.")
    ] = None,
    keep: Annotated[
        int, typer.Option(min=0, help="Newest intermediate checkpoints to keep of each run.")
    ] = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else it is only told.")] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Only tell, with sizes: as without --yes.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove runs with their checkpoints, and whatever no run needs any more.

    That is: tasks and pictures that no run names, folders of runs that are gone, states of finished
    runs, old intermediate checkpoints. Final models, what an unfinished run resumes from, and
    reports stay. Without --yes nothing is removed.
    """
    from datetime import UTC, datetime, timedelta

    from ..config.home import find_home
    from ..store.maintenance import checkpoints, pruning
    from .document import document
    from .store_pages import pruned_lines, swept_lines

    if yes and dry:
        raise typer.BadParameter("--yes does it and --dry-run does not", param_hint="--dry-run")
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
        _tell(swept_lines(swept, root, is_done=yes))
        _tell(pruned_lines(done, is_done=yes))


@store_app.command()
def verify(json: Json = False) -> None:
    """Check every digest: pictures, rows, checkpoints, and the database itself.

    Exits with 1 if anything is wrong; changes nothing. What was stored before there were digests
    of it is counted as unknown.
    """
    from ..store.maintenance import verify as verifying
    from .document import document
    from .store_pages import verdict_lines

    with document(json) as publish, _opened() as opened:
        verdict = verifying.verify(opened, _count)
        publish({"is_whole": verdict.is_whole, "verdict": verdict})
        _tell(verdict_lines(verdict))
    if not verdict.is_whole:
        raise typer.Exit(FINDINGS)


def _opened() -> Store:
    """Open the store alone: nothing else is needed to look into it."""
    from ..config.home import find_home
    from ..store.connection.patience import Patience
    from ..store.store import open_store

    home = find_home()
    return open_store(home, Patience(min(home.store_wait_seconds, 30.0), _warn))


def _tell(lines: Iterable[str]) -> None:
    from .output import say

    for line in lines:
        say(line)


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _count(what: str, count: int) -> None:
    """Show in a terminal how far a check is."""
    if sys.stderr.isatty():
        print(f"\r{count:,} {what}\033[K", end="\r", file=sys.stderr, flush=True)  # noqa: T201
