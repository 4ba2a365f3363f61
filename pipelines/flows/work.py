"""The one Prefect task: runs a stage in a thread; what our infrastructure broke is tried again."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from ...policies.interface import PolicyRefusedError, PolicyUnavailableError
from ...sandbox import SandboxError
from ...sandbox.types import SandboxUnavailableError
from ..runs.context import StageInterrupted
from ..runs.runner import StageBusyError, run_stage
from ..runs.session import RunSession, open_session
from ..store.lineage import StageRun
from .page import on_page
from .publishing import publish_stage

INFRASTRUCTURE = (SandboxError, PolicyUnavailableError, ConnectionError)
FINAL = (SandboxUnavailableError, PolicyRefusedError)
BUSY_SECONDS = 3.0
TAG = "codedance"


async def is_infrastructure(_task: Any, _run: Any, state: Any) -> bool:  # noqa: ANN401 - Prefect's
    """Say whether our infrastructure broke under a task, so that a second try may find it whole.

    What the machine never had (an engine, an image, walls above the floor) no try will find, and
    a server that refuses our key, its address or the model will refuse them again.
    """
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, INFRASTRUCTURE) and not isinstance(error, FINAL)


@task(
    name="stage",
    task_run_name="{stage}",
    cache_policy=NO_CACHE,  # the lineage knows better what can be reused
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_infrastructure,
)
async def work(stage: str, pipeline: str) -> str | State[str]:
    """Run a stage for a pipeline run, resumed where it was stopped; gives the stage run's id."""
    with open_session() as session:
        run = session.store.lineage.get(pipeline)
        try:
            async with on_page(session):
                done = await _run_when_free(session, stage, run)
        except StageInterrupted as stop:
            return Cancelled(message=f"{stop}; what is done is kept: run it again to go on")
        await publish_stage(session, done)
        return done.id


async def _run_when_free(session: RunSession, stage: str, run: StageRun) -> StageRun:
    """Run a stage, once whoever does the same work at this moment has done it."""
    has_said = False
    while True:
        try:
            return await _run_to_its_end(session, stage, run)
        except StageBusyError as busy:
            if not has_said:
                session.progress.say(f"{stage}: waiting, {busy}")
            has_said = True
        await asyncio.sleep(BUSY_SECONDS)
        session.stop.check()


async def _run_to_its_end(session: RunSession, stage: str, run: StageRun) -> StageRun:
    """Run a stage in a thread; a flow that is torn down under it stops it and waits for it.

    A thread cannot be ended from outside: left alone it would go on training while the desk, and
    the sandboxes with it, are closed.
    """
    work = asyncio.ensure_future(asyncio.to_thread(run_stage, session, stage, run))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        session.stop.request()
        await asyncio.wait({work})
        raise
