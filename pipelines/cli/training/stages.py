"""Starts pipeline runs and stages for the command line, with or without Prefect."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ...config.registry import EVALUATION, stage_names
from ...runs.context import StageInterrupted
from ...runs.distributed_launch import launched_processes
from ...runs.recording import at_pipeline, leave
from ...runs.requests import RunRequest, open_pipeline, reopen_pipeline
from ...runs.runner import find_input, load_code, run_stage
from ...runs.session import RunSession, open_session
from ...serving.command_marks import command_mark, dead_marks
from ...stages.finish import finish_pipeline, is_finished_by
from ...store.claims import ClaimLostError
from ...store.lineage import StageRun
from ..cores import use_workers
from ..output import print_report, print_stage, report_document, run_document, say

if TYPE_CHECKING:
    from ...report import Report


def run_pipeline(
    asked: RunRequest | str, *, workers: int | None, prefect: bool, processes: int = 1
) -> dict[str, object]:
    """Run every stage, then print the table and the report's path; return both as a document.

    Args:
        asked: The request, or the id of a pipeline run to continue.
        workers: Processor cores to use; None for all.
        prefect: Whether to run it as a flow.
        processes: Processes for distributed training.
    """
    use_workers(workers)
    with open_session() as session, launched_processes(processes):
        if isinstance(asked, str):
            pipeline = reopen_pipeline(session, asked)
        else:
            pipeline = open_pipeline(session, asked)
        if pipeline.is_finished:
            session.progress.say(f"{pipeline.id} is finished already; --refresh reruns it")
            for run_id in (pipeline.id, *pipeline.stage_runs.values()):
                session.tracker.touch(run_id)  # MLflow may have been away when it ended
            if prefect:
                _close_killed(session, pipeline)
        else:
            with (
                _guarded(session, pipeline),
                at_pipeline(session, pipeline),
                _through_prefect(session, pipeline, is_wanted=prefect) as is_there,
            ):
                load_code()
                if is_there:
                    asyncio.run(_run_flow(session, "pipeline", pipeline))
                else:
                    for stage in stage_names():
                        run_stage(session, stage, pipeline)
                    finish_pipeline(session, pipeline)
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
        with (
            _guarded(session, pipeline),
            at_pipeline(session, pipeline),
            _through_prefect(session, pipeline, is_wanted=prefect) as is_there,
        ):
            if is_there:
                asyncio.run(_run_flow(session, stage, pipeline))
            else:
                run_stage(session, stage, pipeline)
                if is_finished_by(session, stage, pipeline):
                    finish_pipeline(session, pipeline)
        done = find_input(session, pipeline, stage)
        if stage == EVALUATION:
            made = _report(session, pipeline)
            print_report(session, made)
            return report_document(session, pipeline.id, made)
        print_stage(done)
        return run_document(done)


async def _run_flow(session: RunSession, name: str, pipeline: StageRun) -> None:
    """Run the flow for a pipeline run; only the run's id is passed on.

    Runs that a killed command left in Prefect are marked as crashed before.
    """
    from prefect import tags

    from ...flows import FLOWS
    from ...flows import pipeline as whole
    from ...flows.watching import command_tag
    from ...flows.work import TAG
    from ...serving.named_server import failures_reported

    call: Any = whole if name == "pipeline" else FLOWS[name]
    with failures_reported():
        await _close_runs(session)
        with command_mark(session.home), tags(TAG, command_tag()):
            await call(run=pipeline.id)


async def _close_runs(session: RunSession) -> None:
    """Mark the flow runs of killed commands as crashed, and remove the marks of those commands."""
    from ...flows.watching import close_dead_commands

    dead = dead_marks(session.home)
    await close_dead_commands()
    for mark in dead:
        mark.unlink(missing_ok=True)


def _close_killed(session: RunSession, pipeline: StageRun) -> None:
    """Mark flow runs of killed commands as crashed; Prefect is started only where one was."""
    from ...serving.named_server import PrefectAwayError, failures_reported

    if not dead_marks(session.home):
        return
    try:
        with _through_prefect(session, pipeline, is_wanted=True) as is_there:
            if is_there:
                with failures_reported():
                    asyncio.run(_close_runs(session))
    except PrefectAwayError as error:  # the run is finished all the same
        session.progress.say(f"{error}; runs of a killed command stay open there")


@contextmanager
def _through_prefect(
    session: RunSession, pipeline: StageRun, *, is_wanted: bool
) -> Generator[bool]:
    """Start Prefect's server for the time of a command.

    Yields:
        Whether flows can be run: not with ``--no-prefect``, or if the server does not start.
    """
    if not is_wanted:
        yield False
        return
    from ...runs.processes import ServiceError
    from ...serving.own_server import own_server

    session.progress.say(f"{pipeline.id}: starting Prefect …")
    _prepare_prefect()
    with ExitStack() as stack:
        is_there = True
        try:
            stack.enter_context(own_server(session.home, session.stop.check, session.progress.say))
        except ServiceError as error:
            session.progress.say(f"{error}\n{pipeline.id}: continuing without Prefect")
            is_there = False
        yield is_there


def _prepare_prefect() -> None:
    """Configure Prefect to log the run's lines to its page, and to print nothing.

    Of a server that fails it would print addresses, with a password that is part of them.
    """
    from ...serving.client_file import forget_dead_server

    os.environ["PREFECT_LOGGING_LEVEL"] = "INFO"
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
    logging.raiseExceptions = False
    forget_dead_server()


@contextmanager
def _guarded(session: RunSession, pipeline: StageRun) -> Generator[None]:
    """Record in the lineage how the work ended, and print how to resume it."""
    try:
        yield
    except ClaimLostError:
        raise  # another process continues it
    except BaseException as error:
        if not session.stop.is_requested() and not isinstance(error, KeyboardInterrupt):
            leave(session, pipeline, "failed", error)
            raise
        say(f"stopped; `{_same_command()}` resumes it{_resume_note(pipeline)}")
        raise StageInterrupted(pipeline.id) from error


def _same_command() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--refresh", "--fresh")]
    return shlex.join(["codedance", *arguments])


def _resume_note(pipeline: StageRun) -> str:
    if "--resume" in sys.argv:
        return ""
    command = shlex.join(["codedance", "run", "--resume", pipeline.id])
    return f", or after an edit of flows.yaml `{command}`, as it was begun"


def _report(session: RunSession, pipeline: StageRun) -> Report:
    from ...report import make_report

    run = session.store.lineage.get(pipeline.id)
    return make_report(session, run, find_input(session, run, EVALUATION))
