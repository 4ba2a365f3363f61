"""``codedance evaluate``, ``rescore`` and ``report``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from ...config.registry import EVALUATION
from ..exit_codes import leave_incomplete
from ..options import (
    Engine,
    EngineUrl,
    Experiment,
    From,
    Json,
    Limit,
    NoPrefect,
    Policy,
    Preset,
    Refresh,
    RunName,
    SandboxName,
    Seed,
    Set,
    Suite,
    Workers,
    with_engine,
)
from ..server_options import (
    BaseUrl,
    Notes,
    PriceInput,
    PriceOutput,
    RequestsPerMinute,
    TokensPerMinute,
    refuse_without_server,
)

if TYPE_CHECKING:
    from ...report import Report
    from ...runs.session import RunSession
    from ...store.lineage import StageRun


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
    engine: Engine = None,
    engine_url: EngineUrl = None,
    settings: Set = None,
    experiment: Experiment = None,
    json: Json = False,
    base_url: BaseUrl = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    price_input: PriceInput = None,
    price_output: PriceOutput = None,
    notes: Notes = None,
    no_prefect: NoPrefect = False,
) -> None:
    """Evaluate a run's checkpoints, or with --policy, --suite or --limit any policy.

    Exits with 1 if a few episodes were lost to infrastructure, with 3 if most were; the same
    command reruns those and keeps the others.
    """
    from ...config.presets import read_overrides
    from ...runs.requests import RunRequest
    from ..cores import use_workers
    from ..document import document
    from ..training.stages import run_alone

    server = {
        "base_url": base_url,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "price_input": price_input,
        "price_output": price_output,
        "notes": notes,
    }
    is_alone = (policy, suite, limit) != (None, None, None)
    _refuse_what_would_be_ignored(policy, from_run, server, sandbox, is_alone=is_alone)
    overrides = read_overrides(with_engine(settings, engine, engine_url))
    with document(json) as publish:
        if is_alone:
            use_workers(workers)
            from .judging import Judging, judge

            how = Judging(preset, refresh, sandbox, server, seed or 0, overrides)
            name, tasks = ("nano" if one is None else one for one in (policy, suite))
            made = judge(name, tasks, limit, how)
        else:
            run_request = RunRequest(
                preset, seed, None, refresh, from_run, sandbox, overrides=overrides
            )
            made = run_alone("evaluate", run_request, workers=workers, prefect=not no_prefect)
        publish(made)
    leave_incomplete(made)


def _refuse_what_would_be_ignored(
    policy: str | None,
    from_run: str | None,
    server: Mapping[str, object],
    sandbox: str | None,
    *,
    is_alone: bool,
) -> None:
    """Reject options that have no meaning with the rest of the command line."""
    from ..training.stage_commands import unused_options

    if sandbox is not None and "sandbox" in unused_options(EVALUATION):
        raise typer.BadParameter("evaluate does not use it", param_hint="--sandbox")
    if is_alone and from_run is not None:
        raise typer.BadParameter(
            "it evaluates a run's checkpoints on its preset's held-out tasks and combines with "
            "--preset, --seed, --refresh and --sandbox; to evaluate on --suite or --limit, name a "
            "checkpoint with --policy and leave --from out",
            param_hint="--from",
        )
    actual = policy or ("nano" if is_alone else "the checkpoints of a run")
    refuse_without_server(policy, server, actual)


def rescore(run: RunName = "latest", json: Json = False) -> None:
    """Grade a run's stored episodes again, without inference.

    The newest scores count; `codedance store show NUMBER` lists all scores of a trajectory.
    """
    from ...runs.rescoring import rescore_run
    from ...runs.runner import StageError
    from ...runs.session import open_session
    from ..document import document
    from ..output import print_report, report_document, say

    with document(json) as publish, open_session(track=False) as session:
        found = find_judged(session, run)
        changes = list(rescore_run(session, found))
        for change in changes:
            say(
                f"{change.stage_run}: {change.count} episodes graded again, "
                f"{change.changed} with another verdict"
            )
            if change.example is not None:
                say(f"  earlier verdicts are kept: codedance store show {change.example}")
        try:
            made = _report(session, found)
        except StageError as error:  # a run that is not evaluated yet has no table
            say(f"no report: {error}")
            publish({"run": found.id, "changes": changes})
            return
        print_report(session, made)
        publish({"changes": changes, **report_document(session, found.id, made)})


def report(run: RunName = "latest", json: Json = False) -> None:
    """Rebuild a run's report and viewer from the store."""
    from ...runs.session import open_session
    from ...viewer import make_viewer
    from ..document import document
    from ..output import print_report, report_document

    with document(json) as publish, open_session(track=False) as session:
        found = find_judged(session, run)
        made = _report(session, found)
        make_viewer(session.store, session.home, [found], made.folder)
        print_report(session, made)
        publish(report_document(session, found.id, made))


def find_judged(session: RunSession, name: str) -> StageRun:
    """Return a pipeline run, or a standalone evaluation."""
    from ...runs.requests import find_pipeline

    run = session.store.lineage.get(name)
    if run.stage == "evaluate" and run.parent is None:
        return run
    return find_pipeline(session, name)


def _report(session: RunSession, run: StageRun) -> Report:
    from ...report import make_report
    from ...runs.runner import find_input

    evaluation = run if run.stage == "evaluate" else find_input(session, run, "evaluate")
    return make_report(session, run, evaluation)
