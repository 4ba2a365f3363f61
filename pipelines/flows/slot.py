"""One training at a time, whichever deployment, page or command line it was started from.

The limit is Prefect's own (Concurrency in its pages, where it can be raised): a training holds a
slot of it while it works, by a lease that a killed process lets run out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from prefect import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.asyncio import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import get_current_settings

LIMIT = "codedance-training"
TRAININGS = ("sft", "grpo")
LEASE_SECONDS = 60.0
LOOK_SECONDS = 5.0
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
        say: Told once that another training is under way.
        check: Raises when the user asked to stop.
    """
    if stage not in TRAININGS or not get_current_settings().api.url:
        yield
        return
    await make_limit()
    has_said = False
    async with AsyncExitStack() as stack:
        while True:
            check()
            slot = concurrency(
                LIMIT,
                timeout_seconds=LOOK_SECONDS,
                lease_duration=LEASE_SECONDS,
                raise_on_lease_renewal_failure=False,
            )
            try:
                await stack.enter_async_context(slot)
                break
            except TimeoutError:
                if not has_said:
                    say(f"{stage}: waiting, another training is under way (limit {LIMIT})")
                has_said = True
        yield
