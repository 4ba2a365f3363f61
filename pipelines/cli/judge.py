"""``codedance evaluate``, ``rescore`` and ``report``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .options import (
    Experiment,
    From,
    Json,
    Limit,
    Policy,
    Prefect,
    Preset,
    Refresh,
    RunName,
    SandboxName,
    Seed,
    Suite,
    Workers,
)
from .server_options import (
    BaseUrl,
    PriceInput,
    PriceOutput,
    RequestsPerMinute,
    TokensPerMinute,
)

if TYPE_CHECKING:
    from ..desk import Desk
    from ..report import Report
    from ..store import StageRun


def evaluate(  # noqa: PLR0913 - the options of the command
    policy: Policy = None,
    suite: Suite = None,
    limit: Limit = None,
    preset: Preset = None,
    seed: Seed = None,
    refresh: Refresh = False,
    from_run: From = None,
    workers: Workers = None,
    sandbox: SandboxName = None,
    experiment: Experiment = None,
    json: Json = False,
    base_url: BaseUrl = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    price_input: PriceInput = None,
    price_output: PriceOutput = None,
    prefect: Prefect = True,
) -> None:
    """Judge a run's checkpoints, or any policy, on held-out tasks."""
    from ..stages.orders import Wish
    from .document import document
    from .stages import run_alone, use_workers

    with document(json) as publish:
        if policy is None and suite is None and limit is None:
            wish = Wish(preset, seed, None, refresh, from_run, sandbox)
            publish(run_alone("evaluate", wish, workers=workers, prefect=prefect))
            return
        use_workers(workers)
        from .judging import Judging, judge

        server = {
            "base_url": base_url,
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "price_input": price_input,
            "price_output": price_output,
        }
        how = Judging(preset, refresh, sandbox, server)
        publish(judge(policy or "nano", suite or "nano", limit, how))


def rescore(run: RunName = "latest", json: Json = False) -> None:
    """Grade a run's stored episodes again, with no inference."""
    from ..desk import open_desk
    from ..rescoring import rescore_run
    from .document import document
    from .output import print_report, report_document, say

    with document(json) as publish, open_desk(track=False) as desk:
        found = find_judged(desk, run)
        changes = list(rescore_run(desk, found))
        for change in changes:
            say(
                f"{change.stage_run}: {change.count} episodes graded again, "
                f"{change.changed} with another verdict"
            )
        made = _report(desk, found)
        print_report(desk, made)
        publish({"changes": changes, **report_document(desk, found.id, made)})


def report(run: RunName = "latest", json: Json = False) -> None:
    """Make a run's report and viewer again from the store."""
    from ..desk import open_desk
    from ..viewer import make_viewer
    from .document import document
    from .output import print_report, report_document

    with document(json) as publish, open_desk(track=False) as desk:
        found = find_judged(desk, run)
        made = _report(desk, found)
        make_viewer(desk, [found], made.folder)
        print_report(desk, made)
        publish(report_document(desk, found.id, made))


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
