"""The flows run through Prefect with no server started by hand, and leave artifacts behind."""

from __future__ import annotations

import asyncio

import pytest
from codedance.pipelines.flows_file import load_flows_file
from codedance.pipelines.home import prepare_environment

from .runs import first_run

pytestmark = pytest.mark.filterwarnings("ignore")  # Prefect's own, many and none of ours


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    from codedance.pipelines.home import Home

    prepare_environment(Home(tmp_path_factory.mktemp("prefect")))
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=60):
        yield


async def artifacts():
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        return {artifact.key for artifact in await client.read_artifacts()}


def test_pipeline_flow_reuses_what_is_finished_and_publishes(prefect, finished):
    from codedance.pipelines.flows import pipeline

    run = first_run(finished)

    async def go():
        state = await pipeline(run.preset, run.seed, from_run=run.id, return_state=True)
        return state, await artifacts()

    state, found = asyncio.run(go())
    assert state.is_completed()
    assert {"curate-outputs", "data-card", "evaluation-greedy", "report"} <= found
    assert first_run(finished).outputs == run.outputs


def test_an_alarm_is_shown_on_the_flow_runs_page_at_once(prefect, finished):
    from codedance.pipelines.flows import grpo

    run = first_run(finished)

    async def go():
        state = await grpo(run.preset, run.seed + 1, from_run=run.id, return_state=True)
        return state, await artifacts()

    state, found = asyncio.run(go())
    assert state.is_completed()
    assert "alarm-constant-term-accuracy" in found


def test_stopped_stage_is_a_cancelled_flow_run(prefect, finished):
    from codedance.pipelines.flows import curate

    finished.stop.request()
    state = asyncio.run(curate("smoke", seed=77, return_state=True))
    assert state.is_cancelled()
    assert "stopped on request" in state.message


def test_failed_stage_is_a_failed_flow_run_with_its_reason(prefect, finished):
    from codedance.pipelines.flows import sft

    state = asyncio.run(sft("smoke", seed=78, return_state=True))
    assert state.is_failed()
    assert "`codedance curate` first" in state.message


def test_stage_that_our_infrastructure_broke_is_tried_again():
    from codedance.pipelines.flows.work import is_infrastructure
    from codedance.sandbox import SandboxError
    from prefect.states import Failed

    def verdict(error):
        return asyncio.run(is_infrastructure(None, None, Failed(data=error)))

    assert verdict(SandboxError("zygote gone"))
    assert not verdict(ValueError("wrong parameter"))


def test_every_deployment_names_a_flow_that_exists_and_takes_its_parameters():
    from codedance.pipelines import flows

    for entry in load_flows_file().deployments:
        flow = getattr(flows, entry.entrypoint.rpartition(".")[2])
        assert flow.validate_parameters(dict(entry.parameters)).items() >= entry.parameters.items()
