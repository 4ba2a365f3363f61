"""The one Prefect task: runs a stage in a thread; what our infrastructure broke is tried again."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from ...policies.interface import PolicyUnavailableError
from ...sandbox import SandboxError
from ..desk import open_desk
from ..stages.runner import run_stage
from .publishing import publish_stage

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
    with open_desk() as desk:
        run = desk.store.lineage.get(pipeline)
        done = await asyncio.to_thread(run_stage, desk, stage, run)
        await publish_stage(desk, done)
        return done.id
