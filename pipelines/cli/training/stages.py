"""Starts pipeline runs and stages for the command line, with or without Prefect."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ...runs.context import StageInterrupted
from ...runs.distributed_launch import launched_processes
from ...runs.requests import RunRequest, open_pipeline
from ...runs.runner import find_input, leave, load_code, run_stage
from ...runs.session import RunSession, open_session
from ...stages.finish import finish_pipeline
from ...store.lineage import STAGES, StageRun
from ..cores import use_workers
from ..output import print_report, print_stage, report_document, run_document, say

if TYPE_CHECKING:
    from ...report import Report


def run_pipeline(
    run_request: RunRequest, *, workers: int | None, prefect: bool, processes: int = 1
) -> dict[str, object]:
    """Run every stage, then print the table and the report's path; return both as a document."""
    use_workers(workers)
    with open_session() as session, launched_processes(processes):
        pipeline = open_pipeline(session, run_request)
        if pipeline.is_finished:
            session.progress.say(f"{pipeline.id} is finished already; --refresh reruns it")
        else:
            load_code()
            work = _all_through_prefect if prefect else _all_plain
            _guarded(session, pipeline, lambda: work(session, pipeline))
        made = _report(session, pipeline)
        print_report(session, made)
        return report_document(session, pipeline.id, made)


def run_alone(
    stage: str, run_request: RunRequest, *, workers: int | None, prefect: bool, processes: int = 1
) -> dict[str, object]:
    """Run one stage, its inputs found through the lineage; return its outputs as a document."""
    use_workers(workers)
    with open_session() as session, launched_processes(processes):
        pipeline = open_pipeline(session, run_request, stage=stage)
        work = _one_through_prefect if prefect else _one_plain
        _guarded(session, pipeline, lambda: work(session, stage, pipeline))
        done = find_input(session, pipeline, stage)
        if stage == "evaluate":
            made = finish_pipeline(session, pipeline)
            print_report(session, made)
            return report_document(session, pipeline.id, made)
        _leave_open(session, pipeline)
        print_stage(done)
        return run_document(done)


def _all_plain(session: RunSession, pipeline: StageRun) -> None:
    for stage in STAGES:
        run_stage(session, stage, pipeline)
    finish_pipeline(session, pipeline)


def _one_plain(session: RunSession, stage: str, pipeline: StageRun) -> None:
    run_stage(session, stage, pipeline)


def _all_through_prefect(session: RunSession, pipeline: StageRun) -> None:
    def begin() -> Coroutine[Any, Any, object]:
        from ...flows import pipeline as flow
        from ...flows.parameters import preset_of

        return flow(preset_of(pipeline), pipeline.seed, from_run=pipeline.id)

    _through_prefect(session, pipeline, begin, otherwise=lambda: _all_plain(session, pipeline))


def _one_through_prefect(session: RunSession, stage: str, pipeline: StageRun) -> None:
    def begin() -> Coroutine[Any, Any, object]:
        from ...flows import FLOWS
        from ...flows.parameters import preset_of

        return FLOWS[stage](preset_of(pipeline), pipeline.seed, from_run=pipeline.id)

    _through_prefect(
        session, pipeline, begin, otherwise=lambda: _one_plain(session, stage, pipeline)
    )


def _through_prefect(
    session: RunSession,
    pipeline: StageRun,
    begin: Callable[[], Coroutine[Any, Any, object]],
    *,
    otherwise: Callable[[], None],
) -> None:
    """Run a flow; if Prefect's server does not start, do the same work without it."""
    from ...runs.processes import ServiceError
    from ...serving.own_server import own_server

    session.progress.say(f"{pipeline.id}: starting Prefect …")
    _prepare_prefect()
    with ExitStack() as stack:
        try:
            stack.enter_context(own_server(session.home, session.stop.check))
        except ServiceError as error:
            session.progress.say(f"{error}\n{pipeline.id}: continuing without Prefect")
            otherwise()
        else:
            asyncio.run(begin())


def _prepare_prefect() -> None:
    """Configure Prefect to log the run's lines to its page, and to print nothing."""
    from ...serving.client_file import forget_dead_server

    os.environ["PREFECT_LOGGING_LEVEL"] = "INFO"
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    forget_dead_server()


def _guarded(session: RunSession, pipeline: StageRun, work: Callable[[], None]) -> None:
    """Record in the lineage how the work ended, and print how to resume it."""
    try:
        work()
    except BaseException as error:
        if not session.stop.is_requested() and not isinstance(error, KeyboardInterrupt):
            session.store.lineage.mark(pipeline.id, "failed", error=str(error))
            session.tracker.end(pipeline, "failed")
            raise
        _leave_open(session, pipeline)
        say(f"stopped; `{_same_command()}` resumes it")
        raise StageInterrupted(pipeline.id) from error


def _leave_open(session: RunSession, pipeline: StageRun) -> None:
    """Record that no process works on an unfinished pipeline run."""
    leave(session, pipeline)
    if not session.store.lineage.get(pipeline.id).is_finished:
        session.tracker.end(pipeline, "interrupted")


def _same_command() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--refresh", "--fresh")]
    return " ".join(["codedance", *arguments])


def _report(session: RunSession, pipeline: StageRun) -> Report:
    from ...report import make_report

    run = session.store.lineage.get(pipeline.id)
    return make_report(session, run, find_input(session, run, "evaluate"))
