"""The Prefect flows: one per stage, and `pipeline` as their parent. The logic is in `stages`.

They are ``async`` because a synchronous flow costs a second at its end (Prefect waits for its
heartbeat thread); the stage itself runs in a thread besides the event loop.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prefect import flow, tags
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.runtime import flow_run
from prefect.states import Cancelled

from ..runs.requests import RunRequest, open_pipeline
from ..runs.session import RunSession, open_session
from ..stages.finish import finish_pipeline
from ..store.lineage import STAGES, StageRun
from .page import on_page
from .parameters import FromRun, Preset, Refresh, Seed, Suite, explained, name_run, preset_of
from .publishing import publish_report
from .work import TAG, work
from .worker_death import outliving_worker


@flow(name="curate", flow_run_name=name_run)
@explained
async def curate(
    preset: Preset = None,
    seed: Seed = None,
    suite: Suite = None,
    refresh: Refresh = False,
    from_run: FromRun = None,
) -> str | State[str]:
    """Choose and demonstrate the train tasks; return the id of the stage run."""
    return await _alone("curate", _run_request(preset, seed, suite, refresh, from_run))


@flow(name="sft", flow_run_name=name_run)
@explained
async def sft(
    preset: Preset = None,
    seed: Seed = None,
    suite: Suite = None,
    refresh: Refresh = False,
    from_run: FromRun = None,
) -> str | State[str]:
    """Train on the curated demonstrations; return the id of the stage run."""
    return await _alone("sft", _run_request(preset, seed, suite, refresh, from_run))


@flow(name="grpo", flow_run_name=name_run)
@explained
async def grpo(
    preset: Preset = None,
    seed: Seed = None,
    suite: Suite = None,
    refresh: Refresh = False,
    from_run: FromRun = None,
) -> str | State[str]:
    """Train the cold start's model with GRPO; return the id of the stage run."""
    return await _alone("grpo", _run_request(preset, seed, suite, refresh, from_run))


@flow(name="evaluate", flow_run_name=name_run)
@explained
async def evaluate(
    preset: Preset = None,
    seed: Seed = None,
    suite: Suite = None,
    refresh: Refresh = False,
    from_run: FromRun = None,
) -> str | State[str]:
    """Evaluate both checkpoints on the held-out tasks; return the id of the stage run."""
    return await _alone("evaluate", _run_request(preset, seed, suite, refresh, from_run))


@flow(name="pipeline", flow_run_name=name_run)
@explained
async def pipeline(
    preset: Preset = "quick",
    seed: Seed = 0,
    suite: Suite = None,
    refresh: Refresh = False,
    from_run: FromRun = None,
) -> str | State[str]:
    """Run all stages and write the report; return the id of the pipeline run."""
    with open_session() as session:
        async with outliving_worker(session), on_page(session):
            run = open_pipeline(session, _run_request(preset, seed, suite, refresh, from_run))
            session.progress.say(f"pipeline run {run.id}")
            with tags(TAG):
                for stage in STAGES:
                    try:
                        await FLOWS[stage](preset_of(run), run.seed, from_run=run.id)
                    except CancelledRun:
                        return Cancelled(message=f"stopped in {stage}: run it again to resume")
            await _finish(session, run)
            return run.id


FLOWS = {"curate": curate, "sft": sft, "grpo": grpo, "evaluate": evaluate}


def _run_request(
    preset: str | None, seed: int | None, suite: str | None, refresh: bool, from_run: str | None
) -> RunRequest:
    token = str(flow_run.id) if refresh else None
    return RunRequest(preset, seed, suite, refresh, from_run, token=token)


async def _alone(stage: str, run_request: RunRequest) -> str | State[str]:
    with open_session() as session:
        async with outliving_worker(session):
            run = open_pipeline(session, run_request, stage=stage)
            call: Any = work(stage, run.id, return_state=True)  # typed by Prefect as synchronous
            done: State[str] = await call
            if done.is_cancelled():
                return Cancelled(message=done.message)
            made = await done.aresult()
            if stage == STAGES[-1]:
                await _finish(session, run)
            return made


async def _finish(session: RunSession, run: StageRun) -> None:
    """Finish a pipeline run, unless nothing has changed, and publish its report."""
    now = session.store.lineage.get(run.id)
    path = Path(str(now.outputs.get("report", "")))
    if not (now.is_finished and now.outputs == run.outputs and path.is_file()):
        path = (await asyncio.to_thread(finish_pipeline, session, run)).html
    await publish_report(session, run, path)
