"""``codedance evaluate``, ``rescore`` and ``report``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .train import Fresh, From, Prefect, Preset, SandboxName, Seed, Workers

if TYPE_CHECKING:
    from ..desk import Desk
    from ..report import Report
    from ..store import StageRun

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or latest.")]
Policy = Annotated[
    str | None,
    typer.Option(help="nano, oracle, random, a checkpoint folder or a hub id."),
]
Suite = Annotated[
    str | None, typer.Option("--suite", "--tasks", help="nano, nuclei_count, nlvr_dev, a .jsonl.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Judge on this many tasks.")]


def evaluate(  # noqa: PLR0913 - the options of the command
    policy: Policy = None,
    suite: Suite = None,
    limit: Limit = None,
    preset: Preset = None,
    seed: Seed = None,
    fresh: Fresh = False,
    from_run: From = None,
    workers: Workers = None,
    sandbox: SandboxName = None,
    prefect: Prefect = True,
) -> None:
    """Judge a run's checkpoints, or any policy, on held-out tasks.

    codedance evaluate --policy oracle --suite nano --limit 100
    """
    from ..stages.orders import Wish
    from .stages import run_alone, use_workers

    if policy is None and suite is None and limit is None:
        wish = Wish(preset, seed, None, fresh, from_run, sandbox)
        run_alone("evaluate", wish, workers=workers, prefect=prefect)
        return
    use_workers(workers)
    from .judging import judge

    judge(policy or "nano", suite or "nano", limit, preset=preset, fresh=fresh, sandbox=sandbox)


def rescore(run: RunName = "latest") -> None:
    """Grade a run's stored episodes again, with no inference."""
    from ..desk import open_desk
    from ..rescoring import rescore_run
    from .output import print_report, say

    with open_desk(track=False) as desk:
        found = find_judged(desk, run)
        for change in rescore_run(desk, found):
            say(
                f"{change.stage_run}: {change.count} episodes graded again, "
                f"{change.changed} with another verdict"
            )
        print_report(desk, _report(desk, found))


def report(run: RunName = "latest") -> None:
    """Make a run's report and viewer again from the store."""
    from ..desk import open_desk
    from ..viewer import make_viewer
    from .output import print_report

    with open_desk(track=False) as desk:
        found = find_judged(desk, run)
        made = _report(desk, found)
        make_viewer(desk, [found], made.folder)
        print_report(desk, made)


def find_judged(desk: Desk, name: str) -> StageRun:
    """Give a pipeline run, or an evaluation that belongs to none."""
    from ..stages.orders import find_pipeline

    run = desk.store.lineage.get(name)
    if run.stage == "evaluate" and run.parent is None:
        return run
    return find_pipeline(desk, name)


def _report(desk: Desk, run: StageRun) -> Report:
    from ..report import make_report
    from ..stages.runner import find_input

    evaluation = run if run.stage == "evaluate" else find_input(desk, run, "evaluate")
    return make_report(desk, run, evaluation)
