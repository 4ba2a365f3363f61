"""The Prefect flows: each stage is one, `pipeline` is a flow of flows. The logic is in `stages`.

They are ``async`` because a synchronous flow costs a second at its end (Prefect waits for its
heartbeat thread); the work itself runs in a thread beside the event loop.
"""

from __future__ import annotations

import asyncio

from prefect import flow, task

from ..desk import open_desk
from ..stages.orders import make_order, pipeline_run
from ..stages.runner import STAGES, run_stage
from .publishing import publish_report, publish_stage
from .retrying import is_infrastructure


@task(
    name="stage",
    task_run_name="{stage}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=is_infrastructure,
)
async def work(  # noqa: PLR0913 - Prefect shows a task's parameters one by one
    stage: str, preset: str, seed: int, suite: str | None, fresh: bool, from_run: str | None
) -> str:
    """Run a stage in a thread; a stage that our infrastructure broke is resumed, twice at most."""
    with open_desk() as desk:
        order = make_order(preset, seed=seed, suite=suite, fresh=fresh)
        pipeline = pipeline_run(desk, order, from_run)
        done = await asyncio.to_thread(run_stage, desk, stage, order, pipeline)
        await publish_stage(desk, done)
        return done.id


@flow(name="curate", flow_run_name="curate-{preset}-seed-{seed}")
async def curate(
    preset: str = "quick",
    seed: int = 0,
    suite: str | None = None,
    fresh: bool = False,
    from_run: str | None = None,
) -> str:
    """Choose and demonstrate the train tasks; gives the stage run's id."""
    return await work("curate", preset, seed, suite, fresh, from_run)


@flow(name="sft", flow_run_name="sft-{preset}-seed-{seed}")
async def sft(
    preset: str = "quick",
    seed: int = 0,
    suite: str | None = None,
    fresh: bool = False,
    from_run: str | None = None,
) -> str:
    """Train on the curated demonstrations; gives the stage run's id."""
    return await work("sft", preset, seed, suite, fresh, from_run)


@flow(name="grpo", flow_run_name="grpo-{preset}-seed-{seed}")
async def grpo(
    preset: str = "quick",
    seed: int = 0,
    suite: str | None = None,
    fresh: bool = False,
    from_run: str | None = None,
) -> str:
    """Reinforce the cold start's model; gives the stage run's id."""
    return await work("grpo", preset, seed, suite, fresh, from_run)


@flow(name="evaluate", flow_run_name="evaluate-{preset}-seed-{seed}")
async def evaluate(
    preset: str = "quick",
    seed: int = 0,
    suite: str | None = None,
    fresh: bool = False,
    from_run: str | None = None,
) -> str:
    """Judge both checkpoints on the held-out tasks; gives the stage run's id."""
    return await work("evaluate", preset, seed, suite, fresh, from_run)


FLOWS = {"curate": curate, "sft": sft, "grpo": grpo, "evaluate": evaluate}


@flow(name="pipeline", flow_run_name="{preset}-seed-{seed}")
async def pipeline(
    preset: str = "quick",
    seed: int = 0,
    suite: str | None = None,
    fresh: bool = False,
    from_run: str | None = None,
) -> str:
    """Curate, cold start, reinforce, evaluate, report; gives the pipeline run's id."""
    from ..stages.finish import finish_pipeline

    with open_desk() as desk:
        order = make_order(preset, seed=seed, suite=suite, fresh=fresh)
        run = pipeline_run(desk, order, from_run)
        for stage in STAGES:
            await FLOWS[stage](preset, seed, suite, fresh, run.id)
        report = await asyncio.to_thread(finish_pipeline, desk, run)
        await publish_report(desk, run, report)
        return run.id
