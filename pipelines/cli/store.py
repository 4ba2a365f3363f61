"""``codedance store``: look into the trajectory store, check it, copy from it, make room in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..store import StageRun, Store

store_app = typer.Typer(
    name="store",
    help="Look into the trajectory store, check it, copy from it, make room in it.",
    no_args_is_help=True,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
STAGES = ("curate", "sft", "grpo", "evaluate")


@store_app.command("list")
def list_(
    stage: Annotated[
        str | None, typer.Option(help="Only these: pipeline, curate, sft, grpo, evaluate, …")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0 shows all.")] = 20,
    json: Json = False,
) -> None:
    """List runs, the newest first, and what the store holds.

    codedance store list --stage grpo
    """
    from ..store.listing import holdings, list_runs
    from .output import say
    from .store_pages import list_json, list_lines

    with _opened() as store:
        found = store.lineage.find(**({} if stage is None else {"stage": stage}))
        listed = list_runs(store, found[:limit] if limit else found)
        held = holdings(store)
    lines = [list_json(held, listed)] if json else list_lines(held, listed, len(found))
    for line in lines:
        say(line)


@store_app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="RUN|NUMBER", help="A run, or the number of a trajectory.")
    ] = "latest",
    json: Json = False,
) -> None:
    """Show a run with its phases, or one trajectory from its question to its rewards.

    codedance store show latest

    codedance store show 1207
    """
    from ..store.exporting import read_whole
    from ..store.listing import list_runs
    from .output import say
    from .store_pages import as_json, listed_json, run_lines, trajectory_lines

    with _opened() as store:
        if name.isdecimal():
            shown = read_whole(store, int(name))
            lines = trajectory_lines(shown, store.images)
        else:
            (listed,) = list_runs(store, [store.lineage.get(name)])
            lines, shown = run_lines(listed), listed_json(listed)
    for line in [as_json(shown)] if json else lines:
        say(line)


@store_app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="That is to be made.")],
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Which runs; may be repeated.")
    ] = None,
    tokens: Annotated[
        bool, typer.Option(help="Token ids and log-probabilities go with them.")
    ] = True,
    json: Json = False,
) -> None:
    """Copy runs into a folder that any program reads: JSON lines, and pictures as PNG.

    A pipeline run brings its stages; without --run it is the latest. docs/store.md tells the
    format.

    codedance store export my-run --run quick-20261122-201500-ab12
    """
    from ..store.exporting import export as export_runs
    from .output import say
    from .store_pages import export_json, export_line

    with _opened() as store:
        runs = _with_stages(store, run or ["latest"])
        made = export_runs(store, runs, folder, with_tokens=tokens)
    say(export_json(made, runs) if json else export_line(made, runs))


@store_app.command()
def prune(
    run: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="What can go; a pipeline run takes its stages."),
    ] = None,
    older: Annotated[
        float | None, typer.Option("--older-than", min=0.0, help="Days; what is read stays.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else it is only told.")] = False,
    json: Json = False,
) -> None:
    """Remove runs, and the tasks and pictures that no run names any more.

    Without --yes nothing is removed. Checkpoints and reports stay where they are.

    codedance store prune --older-than 30 --yes
    """
    from datetime import UTC, datetime, timedelta

    from ..store.pruning import choose
    from ..store.pruning import prune as prune_runs
    from .output import say
    from .store_pages import pruned_json, pruned_lines

    with _opened() as store:
        named = [store.lineage.get(one) for one in run or ()]
        now = datetime.now(UTC).replace(tzinfo=None)
        before = None if older is None else now - timedelta(days=older)
        done = prune_runs(store, choose(store.lineage, named, begun_before=before), is_dry=not yes)
    for line in [pruned_json(done, is_done=yes)] if json else pruned_lines(done, is_done=yes):
        say(line)


@store_app.command()
def verify(json: Json = False) -> None:
    """Check every digest: pictures, tasks, trajectories, runs, and the database itself.

    Exits with 1 if anything is wrong; changes nothing.

    codedance store verify
    """
    from ..store.verify import verify as verify_store
    from .output import say
    from .store_pages import verdict_json, verdict_lines

    with _opened() as store:
        verdict = verify_store(store, _count)
    for line in [verdict_json(verdict)] if json else verdict_lines(verdict):
        say(line)
    if not verdict.is_whole:
        raise typer.Exit(1)


def _opened() -> Store:
    """Open the store alone: nothing else is needed to look into it."""
    from ..home import find_home
    from ..store import Patience, open_store

    home = find_home()
    return open_store(home, Patience(min(home.store_wait_seconds, 30.0), _say))


def _with_stages(store: Store, names: list[str]) -> list[StageRun]:
    """Give runs by name, pipeline runs with the stage runs that are theirs."""
    found: dict[str, StageRun] = {}
    for name in names:
        run = store.lineage.get(name)
        theirs = store.lineage.find(parent=run.id)
        adopted = [
            store.lineage.get(str(run.outputs[stage])) for stage in STAGES if stage in run.outputs
        ]
        found |= {one.id: one for one in (run, *reversed(theirs), *adopted)}
    return list(found.values())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _count(what: str, count: int) -> None:
    """Show in a terminal how far a check is."""
    if sys.stderr.isatty():
        print(f"\r{count:,} {what}\033[K", end="\r", file=sys.stderr, flush=True)  # noqa: T201
