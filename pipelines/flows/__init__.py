"""The Prefect flows: each stage is one, `pipeline` is a flow of flows. The logic is in `stages`.

They are ``async`` because a synchronous flow costs a second at its end (Prefect waits for its
heartbeat thread); the work itself runs in a thread beside the event loop.
"""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.states import Cancelled

from ..desk import open_desk
from ..stages.context import StageInterrupted
from ..stages.finish import finish_pipeline
from ..stages.orders import Wish, open_pipeline
from ..stages.runner import STAGES
from .publishing import publish_report
from .work import work


@flow(name="curate", flow_run_name="curate-{preset}-seed-{seed}")
async def curate(
    preset: str | None = None,
    seed: int | None = None,
    suite: str | None = None,
    fresh: bool = False,
    from_run: str | None = None,
) -> str | State[str]:
    """Choose and demonstrate the train tasks; gives the stage run's id."""
    return await _alone("curate", Wish(preset, seed, suite, fresh, from_run))


@flow(name="sft", flow_run_name="sft-{preset}-seed-{seed}")
async def sft(
    preset: str | None = None,
    seed: int | None = None,
    suite: str | None = None,
    fresh: bool = False,
    from_run: str | None = None,
) -> str | State[str]:
    """Train on the curated demonstrations; gives the stage run's id."""
    return await _alone("sft", Wish(preset, seed, suite, fresh, from_run))


@flow(name="grpo", flow_run_name="grpo-{preset}-seed-{seed}")
async def grpo(
    preset: str | None = None,
    seed: int | None = None,
    suite: str | None = None,
    fresh: bool = False,
    from_run: str | None = None,
) -> str | State[str]:
    """Reinforce the cold start's model; gives the stage run's id."""
    return await _alone("grpo", Wish(preset, seed, suite, fresh, from_run))


@flow(name="evaluate", flow_run_name="evaluate-{preset}-seed-{seed}")
async def evaluate(
    preset: str | None = None,
    seed: int | None = None,
    suite: str | None = None,
    fresh: bool = False,
    from_run: str | None = None,
) -> str | State[str]:
    """Judge both checkpoints on the held-out tasks; gives the stage run's id."""
    return await _alone("evaluate", Wish(preset, seed, suite, fresh, from_run))


@flow(name="pipeline", flow_run_name="{preset}-seed-{seed}")
async def pipeline(
    preset: str | None = "quick",
    seed: int | None = 0,
    suite: str | None = None,
    fresh: bool = False,
    from_run: str | None = None,
) -> str | State[str]:
    """Curate, cold start, reinforce, evaluate, report; gives the pipeline run's id."""
    with open_desk() as desk:
        run = open_pipeline(desk, Wish(preset, seed, suite, fresh, from_run))
        for stage in STAGES:
            try:
                await FLOWS[stage](run.preset, run.seed, from_run=run.id)
            except CancelledRun:
                return Cancelled(message=f"stopped in {stage}; run {run.id} can be gone on with")
        report = await asyncio.to_thread(finish_pipeline, desk, run)
        await publish_report(desk, run, report)
        return run.id


FLOWS = {"curate": curate, "sft": sft, "grpo": grpo, "evaluate": evaluate}


async def _alone(stage: str, wish: Wish) -> str | State[str]:
    with open_desk() as desk:
        run = open_pipeline(desk, wish, stage=stage)
        try:
            return await work(stage, run.id)
        except StageInterrupted as stop:
            return Cancelled(message=str(stop))
