"""The one Prefect task: runs a stage in a thread; what our infrastructure broke is tried again."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from ...policies.alarms import Alarm
from ...policies.interface import PolicyUnavailableError
from ...sandbox import SandboxError
from ..desk import open_desk
from ..stages.context import ignore_alarm
from ..stages.runner import run_stage
from ..store import StageRun
from .publishing import publish_alarm, publish_stage

INFRASTRUCTURE = (SandboxError, PolicyUnavailableError, ConnectionError)


async def is_infrastructure(_task: Any, _run: Any, state: Any) -> bool:  # noqa: ANN401 - Prefect's
    """Say whether a task ended by our infrastructure's fault, not by the user's wish."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, INFRASTRUCTURE)


@task(
    name="stage",
    task_run_name="{stage}",
    cache_policy=NO_CACHE,  # the lineage knows better what can be reused
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_infrastructure,
)
async def work(stage: str, pipeline: str) -> str:
    """Run a stage for a pipeline run, resumed where it was stopped; gives the stage run's id."""
    loop = asyncio.get_running_loop()
    shown: list[Future[None]] = []

    def show(stage_run: StageRun, alarm: Alarm) -> None:
        """Publish at once, while the stage goes on in its thread."""
        shown.append(asyncio.run_coroutine_threadsafe(publish_alarm(stage_run, alarm), loop))

    with open_desk() as desk:
        run = desk.store.lineage.get(pipeline)
        desk.on_alarm = show
        try:
            done = await asyncio.to_thread(run_stage, desk, stage, run)
        finally:
            desk.on_alarm = ignore_alarm
            # An alarm that Prefect did not take is in the log, the folder and MLflow.
            await asyncio.gather(*map(asyncio.wrap_future, shown), return_exceptions=True)
        await publish_stage(desk, done)
        return done.id
