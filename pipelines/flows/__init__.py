"""The Prefect flows: one per stage, and `pipeline` as their parent. The logic is in `stages`.

They are ``async`` because a synchronous flow costs a second at its end (Prefect waits for its
heartbeat thread); the stage itself runs in a thread besides the event loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import Flow, flow, tags
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.runtime import flow_run
from prefect.states import Cancelled

from ..config.registry import find_stage, stage_names
from ..config.yaml_file import SettingsError
from ..runs.recording import at_pipeline
from ..runs.requests import RunRequest, open_pipeline, reopen_pipeline
from ..runs.session import RunSession, open_session
from ..stages.finish import finish_pipeline, is_finished_by
from ..store.lineage import StageRun
from .page import on_page
from .parameters import FromRun, Overrides, Preset, Refresh, Run, Seed, Suite, explained, name_run
from .publishing import publish_report
from .work import TAG, work
from .worker_death import outliving_worker


def _stage_flow(stage: str) -> Flow[..., Any]:
    """Return the flow that runs one stage; its inputs are found by lineage."""

    async def run_flow(  # noqa: PLR0913 - the fields of Prefect's form
        preset: Preset = None,
        seed: Seed = None,
        suite: Suite = None,
        refresh: Refresh = False,
        from_run: FromRun = None,
        overrides: Overrides = None,
        run: Run = None,
    ) -> str | State[str]:
        asked = _run_request(preset, seed, suite, refresh, from_run, overrides)
        with open_session() as session:
            async with outliving_worker(session):
                opened = _opened(session, asked, run, stage)
                with at_pipeline(session, opened):
                    call: Any = work(stage, opened.id, return_state=True)  # typed as synchronous
                    done: State[str] = await call
                    if done.is_cancelled():
                        return Cancelled(message=done.message)
                    made = await done.aresult()
                    if is_finished_by(session, stage, opened):
                        await _finish(session, opened)
                    return made

    run_flow.__name__ = run_flow.__qualname__ = stage
    run_flow.__doc__ = find_stage(stage).summary
    return flow(name=stage, flow_run_name=name_run)(explained(run_flow))


FLOWS = {name: _stage_flow(name) for name in stage_names()}
"""The flow of each stage, by name; `__getattr__` makes each an attribute of this module too."""


def __getattr__(name: str) -> Flow[..., Any]:
    """Return the flow of a stage, as entrypoints name it: ``codedance.pipelines.flows.curate``."""
    if name in FLOWS:
        return FLOWS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *FLOWS})


@flow(name="pipeline", flow_run_name=name_run)
@explained
async def pipeline(  # noqa: PLR0913 - the fields of Prefect's form
    preset: Preset = None,
    seed: Seed = None,
    suite: Suite = None,
    refresh: Refresh = False,
    from_run: FromRun = None,
    overrides: Overrides = None,
    run: Run = None,
) -> str | State[str]:
    """Run all stages and write the report; return the id of the pipeline run."""
    asked = _run_request(preset, seed, suite, refresh, from_run, overrides)
    with open_session() as session:
        async with outliving_worker(session), on_page(session):
            opened = _opened(session, asked, run, None)
            session.progress.say(f"pipeline run {opened.id}")
            with tags(TAG), at_pipeline(session, opened):
                for stage in FLOWS:
                    try:
                        await FLOWS[stage](run=opened.id)
                    except CancelledRun:
                        return Cancelled(message=f"stopped in {stage}: run it again to resume")
                await _finish(session, opened)
            return opened.id


def _run_request(
    preset: str | None,
    seed: int | None,
    suite: str | None,
    refresh: bool,
    from_run: str | None,
    overrides: dict[str, Any] | None,
) -> RunRequest:
    return RunRequest(preset, seed, suite, refresh, from_run, overrides=overrides or {})


def _opened(session: RunSession, asked: RunRequest, run: str | None, stage: str | None) -> StageRun:
    """Return the pipeline run to continue by its id, or the one that parameters ask for.

    A flow run that is retried gets the pipeline run that it began, whatever flows.yaml says now.
    """
    if run is None:
        return open_pipeline(session, replace(asked, token=str(flow_run.id)), stage=stage)
    if asked != RunRequest():
        raise SettingsError(
            f"run={run} continues that run as it was resolved: leave the other parameters out, or "
            "name it as from_run to change them"
        )
    return reopen_pipeline(session, run)


async def _finish(session: RunSession, run: StageRun) -> None:
    """Finish a pipeline run, unless nothing has changed, and publish its report."""
    now = session.store.lineage.get(run.id)
    path = Path(str(now.outputs.get("report", "")))
    if not (now.is_finished and now.outputs == run.outputs and path.is_file()):
        path = (await asyncio.to_thread(finish_pipeline, session, run)).html
    await publish_report(session, run, path)
