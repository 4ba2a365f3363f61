"""The Prefect task that runs a stage in a thread, with retries after infrastructure failures."""

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
from ..runs.runner import run_stage
from ..runs.session import RunSession, open_session
from ..store.lineage import StageRun
from .page import on_page
from .publishing import publish_stage

INFRASTRUCTURE = (SandboxError, PolicyUnavailableError, ConnectionError)
FINAL = (SandboxUnavailableError, PolicyRefusedError)
TAG = "codedance"


async def is_infrastructure(_task: Any, _run: Any, state: Any) -> bool:  # noqa: ANN401 - Prefect's
    """Return whether a task failed because of infrastructure, so that a retry may succeed.

    A retry does not help where the machine lacks something (an engine, an image, the minimum
    isolation level), or where a server refuses the key, the address or the model.
    """
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, INFRASTRUCTURE) and not isinstance(error, FINAL)


@task(
    name="stage",
    task_run_name="{stage}",
    cache_policy=NO_CACHE,  # the lineage decides what can be reused
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_infrastructure,
)
async def work(stage: str, pipeline: str) -> str | State[str]:
    """Run or resume a stage for a pipeline run; return the id of the stage run."""
    with open_session() as session:
        run = session.store.lineage.get(pipeline)
        try:
            async with on_page(session):
                done = await _run_in_thread(session, stage, run)
        except StageInterrupted as stop:
            return Cancelled(message=f"{stop}; completed work is kept: run it again to resume")
        await publish_stage(session, done)
        return done.id


async def _run_in_thread(session: RunSession, stage: str, run: StageRun) -> StageRun:
    """Run a stage in a thread.

    A flow that is torn down under its stage stops it and waits for it: a thread cannot be ended
    from outside, and would continue training while the session and its sandboxes are closed.
    """
    work = asyncio.ensure_future(asyncio.to_thread(run_stage, session, stage, run))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        session.stop.request()
        await asyncio.wait({work})
        raise
