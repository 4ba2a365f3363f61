"""One training at a time, whichever deployment, page or command line it was started from.

The limit is Prefect's own (Concurrency in its pages, where it can be raised): a training holds a
slot of it while it works, by a lease that a killed process lets run out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from prefect import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import get_current_settings

LIMIT = "codedance-training"
TRAININGS = ("sft", "grpo")
LEASE_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""So often a waiting run looks whether it was told to stop."""


async def make_limit() -> None:
    """Make the limit, unless there is one: its number is the user's from then on."""
    async with get_client() as client:
        try:
            await client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            wanted = GlobalConcurrencyLimitCreate(name=LIMIT, limit=1)
            try:
                await client.create_global_concurrency_limit(wanted)
            except ObjectAlreadyExists:
                return


@asynccontextmanager
async def training_slot(
    stage: str, *, say: Callable[[str], None], check: Callable[[], None]
) -> AsyncGenerator[None]:
    """Hold the slot while a training lasts; other stages, and runs without a server, need none.

    Args:
        stage: What is to be run.
        say: Told once that the slot is not free.
        check: Raises when the user asked to stop.

    Raises:
        ConnectionError: Prefect's server could not be asked for the slot.
    """
    if stage not in TRAININGS or not get_current_settings().api.url:
        yield
        return
    await make_limit()
    begun, ended = asyncio.Event(), asyncio.Event()
    holder = asyncio.create_task(_hold(begun, ended))
    has_said = False
    try:
        while not begun.is_set():
            check()
            await _first_of(holder, asyncio.create_task(begun.wait()))
            if holder.done():
                raise ConnectionError(f"no slot of {LIMIT}") from holder.exception()
            if not begun.is_set() and not has_said:
                say(f"{stage}: waiting for its turn, one training at a time (limit {LIMIT})")
                has_said = True
        yield
    finally:
        ended.set()
        if not begun.is_set():
            holder.cancel()
        await asyncio.wait({holder})


async def _first_of(holder: asyncio.Task[None], beginning: asyncio.Task[bool]) -> None:
    """Wait until the slot is held, or cannot be, or it is time to look whether to stop."""
    first = asyncio.FIRST_COMPLETED
    await asyncio.wait({holder, beginning}, timeout=LOOK_SECONDS, return_when=first)
    beginning.cancel()


async def _hold(begun: asyncio.Event, ended: asyncio.Event) -> None:
    """Hold a slot, in a task of its own, so that waiting for it can be given up at any moment."""
    async with concurrency(
        LIMIT, lease_duration=LEASE_SECONDS, raise_on_lease_renewal_failure=False
    ):
        begun.set()
        await ended.wait()
