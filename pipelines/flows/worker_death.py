"""Let a flow run outlive the worker that started it.

Its output does not go through the worker's pipes (`keep_output`). Normally only the worker stops a
cancelled run: without a worker, the run polls for its cancellation itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
from prefect import get_client
from prefect.exceptions import PrefectException

from ..runs.session import RunSession
from ..serving.flow_processes import RUN, keep_output

LOOK_SECONDS = 5.0


@asynccontextmanager
async def outliving_worker(session: RunSession) -> AsyncGenerator[None]:
    """Keep the flow run of this process running, and cancellable, after its worker has ended.

    In a process that was not started for a single flow run (a command, a test), nothing changes.
    """
    if RUN not in os.environ:
        yield
        return
    keep_output(session.home)
    watch = asyncio.create_task(_heed_cancellation(session, os.environ[RUN], os.getppid()))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.wait({watch})


async def _heed_cancellation(session: RunSession, run: str, parent: int) -> None:
    """Request a stop once the run was cancelled and its worker has ended."""
    while not session.stop.is_requested():
        await asyncio.sleep(LOOK_SECONDS)
        if os.getppid() == parent != 1:
            continue
        try:
            async with get_client() as client:
                found = await client.read_flow_run(UUID(run))
        except (httpx.HTTPError, PrefectException):  # the server is unreachable: try again later
            continue
        if found.state is not None and (found.state.is_cancelling() or found.state.is_cancelled()):
            session.stop.request()
