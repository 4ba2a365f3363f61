"""The flows run through Prefect without a manually started server, and publish artifacts."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
from codedance.pipelines.config.flows_file import load_flows_file
from codedance.pipelines.config.home import prepare_environment
from codedance.pipelines.config.yaml_file import SettingsError
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.session import open_session

from ..frames import MOST_FRAMES, Reached, is_ours
from ..prefect_clients import leftovers_collected
from ..tiny_runs import first_run, with_function

pytestmark = pytest.mark.filterwarnings("ignore")  # many warnings of Prefect only


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    from codedance.pipelines.config.home import Home

    prepare_environment(Home(tmp_path_factory.mktemp("prefect")))
    from prefect.testing.utilities import prefect_test_harness

    with leftovers_collected(), prefect_test_harness(server_startup_timeout=240):
        yield


@pytest.fixture
def log_lines():
    """Let Prefect store lines below warnings, as it does by default."""
    logger = logging.getLogger("prefect")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


async def artifacts():
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        return {artifact.key for artifact in await client.read_artifacts()}


def test_pipeline_flow_reuses_finished_stages_and_publishes(prefect, finished):
    from codedance.pipelines.flows import pipeline

    run = first_run(finished)

    async def go():
        state = await pipeline(run.preset, run.seed, from_run=run.id, return_state=True)
        return state, await artifacts()

    state, found = asyncio.run(go())
    assert state.is_completed()
    assert {"curate-outputs", "data-card", "evaluation-greedy", "report"} <= found
    assert first_run(finished).outputs == run.outputs


def test_an_alarm_is_shown_on_the_flow_runs_page_immediately(prefect, finished):
    from codedance.pipelines.flows import FLOWS

    run = first_run(finished)

    async def go():
        state = await FLOWS["grpo"](run.preset, run.seed + 1, from_run=run.id, return_state=True)
        return state, await artifacts()

    state, found = asyncio.run(go())
    assert state.is_completed()
    assert "alarm-constant-term-accuracy" in found


def test_the_messages_of_a_stage_are_on_the_flow_runs_page(prefect, finished, log_lines):
    from codedance.pipelines.flows import FLOWS
    from prefect.client.orchestration import get_client
    from prefect.logging.handlers import APILogHandler

    run = first_run(finished)

    async def go():
        state = await FLOWS["grpo"](run.preset, run.seed, from_run=run.id, return_state=True)
        await APILogHandler.aflush()
        async with get_client() as client:
            lines = await client.read_logs()
            made = await client.read_artifacts()
        return state.state_details.flow_run_id, lines, made

    flow_run, lines, made = asyncio.run(go())
    said = [line.message for line in lines if line.flow_run_id == flow_run]
    assert any(line.startswith("grpo: already finished (grpo-") for line in said)
    figures = [a for a in made if a.flow_run_id == flow_run and a.type == "image"]
    assert {a.key for a in figures} >= {"figure-grpo-entropy"}
    assert all(str(a.data).startswith("data:image/svg+xml;base64,") for a in figures)


@pytest.mark.parametrize("is_last", [True, False])
def test_a_flow_finishes_a_run_after_its_last_stage(home, tiny, monkeypatch, is_last):
    from codedance.pipelines import flows
    from prefect.states import Completed

    finished, before = [], []

    async def work(_stage, pipeline, *, return_state):
        before.append((return_state, session.store.lineage.get(pipeline).status))
        return Completed(data="sft-1")

    async def finish(_session, run):
        finished.append(run.id)

    monkeypatch.setattr(flows, "work", work)
    monkeypatch.setattr(flows, "_finish", finish)
    monkeypatch.setattr(flows, "is_finished_by", lambda *_: is_last)
    with open_session(home, track=False) as session:
        run = open_pipeline(session, RunRequest("smoke"))
        session.store.lineage.mark(run.id, "interrupted")
        assert asyncio.run(flows.FLOWS["sft"].fn(run=run.id)) == "sft-1"
        assert finished == ([run.id] if is_last else [])
        assert before == [(True, "running")]
        assert session.store.lineage.get(run.id).status == "interrupted"


def test_stopped_stage_is_a_cancelled_flow_run(prefect, finished):
    from codedance.pipelines.flows import FLOWS

    finished.stop.request()
    state = asyncio.run(FLOWS["curate"]("smoke", seed=77, return_state=True))
    assert state.is_cancelled()
    assert "stopped on request" in state.message
    assert "run it again to resume" in state.message


def test_pipeline_flow_stops_at_sigterm_like_its_stages(prefect, finished, monkeypatch):
    """A subflow handles the signal itself, in Prefect's way, which does not end threads."""
    from codedance.pipelines.flows import pipeline
    from codedance.pipelines.stages import curate

    ended = []

    def work_until_stopped(context):
        os.kill(os.getpid(), signal.SIGTERM)
        while not context.stop.is_requested():
            time.sleep(0.01)
        ended.append(context.run.stage)
        context.stop.check()

    with_function(monkeypatch, curate, work_until_stopped)
    state = asyncio.run(pipeline("smoke", seed=79, return_state=True))
    assert ended == ["curate"]
    assert state.is_cancelled()
    assert state.message == "stopped in curate: run it again to resume"


def test_stage_of_a_flow_that_is_torn_down_is_stopped_and_waited_for(finished, monkeypatch):
    work = import_module("codedance.pipelines.flows.work")  # a task has that name too
    begun, ended = threading.Event(), []

    def train(session, _stage, _run):
        begun.set()
        while not session.stop.is_requested():
            time.sleep(0.01)
        ended.append("training")

    async def tear_down():
        under_way = asyncio.create_task(work._run_in_thread(finished, "grpo", None))
        await asyncio.to_thread(begun.wait)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        return list(ended)

    monkeypatch.setattr(work, "run_stage", train)
    assert asyncio.run(tear_down()) == ["training"]


def test_a_finished_stage_does_not_wait_for_a_training(prefect, finished):
    from codedance.pipelines.flows import FLOWS
    from codedance.pipelines.runs.turns import training_turn

    run = first_run(finished)

    async def go():
        with training_turn("sft", fallback=finished.home.root, say=print, check=lambda: None):
            shown = FLOWS["grpo"](run.preset, run.seed, from_run=run.id, return_state=True)
            return await asyncio.wait_for(shown, timeout=60)

    assert asyncio.run(go()).is_completed()


def test_failed_stage_is_a_failed_flow_run_with_its_reason(prefect, finished):
    from codedance.pipelines.flows import FLOWS

    state = asyncio.run(FLOWS["sft"]("smoke", seed=78, return_state=True))
    assert state.is_failed()
    assert "`codedance curate` first" in state.message


def test_stage_that_failed_by_infrastructure_is_retried():
    from codedance.pipelines.flows.work import is_infrastructure
    from codedance.sandbox import SandboxError
    from codedance.sandbox.types import SandboxUnavailableError
    from prefect.states import Failed

    def verdict(error):
        return asyncio.run(is_infrastructure(None, None, Failed(data=error)))

    assert verdict(SandboxError("zygote gone"))
    assert not verdict(SandboxUnavailableError("no Docker engine"))
    assert not verdict(ValueError("wrong parameter"))


def test_every_deployment_names_an_existing_flow_that_accepts_its_parameters():
    from codedance.pipelines import flows

    for entry in load_flows_file().deployments:
        flow = getattr(flows, entry.entrypoint.rpartition(".")[2])
        assert flow.validate_parameters(dict(entry.parameters)).items() >= entry.parameters.items()


def test_a_training_waiting_for_its_turn_can_be_stopped(prefect, finished):
    from codedance.pipelines.flows import FLOWS
    from codedance.pipelines.runs.turns import training_turn

    run, said = first_run(finished), []

    def say(text):
        said.append(text)
        finished.stop.request()

    finished.progress.say = say
    with training_turn("sft", fallback=finished.home.root, say=print, check=lambda: None):
        state = asyncio.run(
            FLOWS["grpo"](run.preset, run.seed, from_run=run.id, refresh=True, return_state=True)
        )
    assert state.is_cancelled()
    assert any("grpo: waiting for its turn, one training at a time" in line for line in said)


def test_the_automations_for_dead_runs_are_created_only_once(prefect):
    from codedance.pipelines.flows.watching import make_automations
    from prefect.client.orchestration import get_client

    async def go():
        await make_automations()
        await make_automations()
        async with get_client() as client:
            return await client.read_automations()

    found = asyncio.run(go())
    assert sorted(one.name for one in found) == [
        "codedance: heartbeat stopped",
        "codedance: never began",
    ]
    for one in found:
        assert one.trigger.match_related["prefect.resource.id"] == ["prefect.tag.codedance"]


def test_a_task_of_a_dead_process_is_marked_and_a_running_one_is_not(prefect):
    from codedance.pipelines.flows import FLOWS
    from codedance.pipelines.flows.watching import close_lost_tasks
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed, Running

    work = import_module("codedance.pipelines.flows.work").work

    async def go():
        async with get_client() as client:
            tasks = []
            for _ in ("dead", "at work"):
                run = await client.create_flow_run(
                    FLOWS["grpo"], tags=["codedance"], state=Running()
                )
                task = await client.create_task_run(work, run.id, "0", state=Running())
                tasks.append((run, task))
            await client.set_flow_run_state(tasks[0][0].id, Crashed(), force=True)
            closed = await close_lost_tasks()
            return closed, [(await client.read_task_run(task.id)).state for _, task in tasks]

    closed, (dead, at_work) = asyncio.run(go())
    assert closed == 1
    assert dead.is_crashed()
    assert at_work.is_running()


def test_a_run_without_a_process_is_marked_with_its_subflows_and_no_other(prefect):
    from codedance.pipelines.flows import FLOWS
    from codedance.pipelines.flows.watching import close_dead_runs
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.states import Pending, Running

    work = import_module("codedance.pipelines.flows.work").work

    async def go():
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name="machine", type="process"))
            flow = await client.create_flow(FLOWS["grpo"])
            of = await client.create_deployment(flow, "of-dead-runs", work_pool_name="machine")
            dead, taken, alive = [
                await client.create_flow_run_from_deployment(of, state=state)
                for state in (Running(), Pending(), Running())
            ]
            alone = await client.create_flow_run(FLOWS["grpo"], state=Running())  # a command's
            task = await client.create_task_run(work, dead.id, "0", state=Running())
            within = await client.create_flow_run(
                FLOWS["grpo"], parent_task_run_id=task.id, state=Running()
            )
            closed = await close_dead_runs(["machine"], {str(alive.id)})
            runs = (dead, taken, within, alive, alone)
            return closed, [(await client.read_flow_run(run.id)).state_name for run in runs]

    closed, states = asyncio.run(go())
    assert closed == 2
    assert states == ["Crashed", "Crashed", "Crashed", "Running", "Running"]


def test_runs_of_a_killed_command_are_marked_and_those_of_a_living_one_are_not(prefect):
    from codedance.pipelines.flows import FLOWS
    from codedance.pipelines.flows.watching import COMMAND_TAG, close_dead_commands, command_tag
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    work = import_module("codedance.pipelines.flows.work").work
    host, pid, begun = command_tag().removeprefix(COMMAND_TAG).rsplit("|", 2)
    gone, elsewhere = f"{COMMAND_TAG}{host}|{pid}|{int(begun) - 1}", f"{COMMAND_TAG}other|1|1"

    async def go():
        async with get_client() as client:
            dead, alive, far = [
                await client.create_flow_run(
                    FLOWS["grpo"], tags=["codedance", tag], state=Running()
                )
                for tag in (gone, command_tag(), elsewhere)
            ]
            task = await client.create_task_run(work, dead.id, "0", state=Running())
            within = await client.create_flow_run(
                FLOWS["grpo"], parent_task_run_id=task.id, state=Running()
            )
            closed = await close_dead_commands()
            runs = (dead, within, alive, far)
            states = [(await client.read_flow_run(run.id)).state_name for run in runs]
            return closed, states, (await client.read_task_run(task.id)).state_name

    closed, states, task = asyncio.run(go())
    assert closed == 1
    assert states == ["Crashed", "Crashed", "Running", "Running"]
    assert task == "Crashed"


def test_a_run_without_its_worker_detects_its_cancellation_itself(prefect, finished, monkeypatch):
    from codedance.pipelines.flows import FLOWS, worker_death
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling, Running

    monkeypatch.setattr(worker_death, "LOOK_SECONDS", 0.0)
    dead_worker = -1

    async def go():
        async with get_client() as client:
            run = await client.create_flow_run(FLOWS["grpo"], state=Running())
            watch = worker_death._heed_cancellation(finished, str(run.id), dead_worker)
            watching = asyncio.create_task(watch)
            assert not finished.stop.is_requested()
            await client.set_flow_run_state(run.id, Cancelling(), force=True)
            await asyncio.wait_for(watching, timeout=240)

    asyncio.run(go())
    assert finished.stop.is_requested()


async def miss_runs(client, flow, *, tags):
    """Let the server's scheduler create runs of a deployment for a time in the past."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule

    every_hour = IntervalSchedule(interval=timedelta(hours=1))
    deployment = await client.create_deployment(
        flow_id=await client.create_flow(flow),
        name=f"hourly-{'-'.join(tags) or 'untagged'}",
        schedules=[DeploymentScheduleCreate(schedule=every_hour, active=True)],
        tags=tags,
    )
    now = datetime.now(UTC)
    ask = {"start_time": f"{now - timedelta(hours=3)}", "end_time": f"{now - timedelta(minutes=1)}"}
    ask |= {"min_runs": 1, "max_runs": 2}
    await client.request(
        "POST", "/deployments/{id}/schedule", path_params={"id": deployment}, json=ask
    )
    return deployment


def test_missed_runs_are_dropped_and_a_manually_created_one_is_not(prefect):
    from codedance.pipelines.flows import FLOWS
    from codedance.pipelines.flows.deploying import drop_missed
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
    from prefect.states import Scheduled

    async def go():
        async with get_client() as client:
            ours = await miss_runs(client, FLOWS["curate"], tags=["codedance"])
            others = await miss_runs(client, FLOWS["curate"], tags=["somebody-else"])
            asked = await client.create_flow_run(
                FLOWS["curate"], tags=["codedance"], state=Scheduled()
            )
            left = {}
            for name, deployment in (("ours", ours), ("others", others)):
                one = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
                left[name] = one
            past = {name: await missed(client, one) for name, one in left.items()}
            dropped = await drop_missed()
            after = {name: await missed(client, one) for name, one in left.items()}
            return past, dropped, after, await client.read_flow_run(asked.id)

    async def missed(client, chosen):
        runs = await client.read_flow_runs(flow_run_filter=chosen)
        return sum(run.expected_start_time < datetime.now(UTC) for run in runs)

    past, dropped, after, asked = asyncio.run(go())
    assert past == {"ours": 2, "others": 2}
    assert dropped == 2
    assert after == {"ours": 0, "others": 2}
    assert asked.state.is_scheduled()  # it was not created by a schedule


def test_forms_explain_every_parameter():
    from codedance.pipelines.flows import FLOWS, pipeline

    for flow in (*FLOWS.values(), pipeline):
        fields = flow.parameters.properties
        assert set(fields) == {
            *("preset", "seed", "suite", "refresh", "from_run", "overrides", "run"),
        }
        assert all(field["description"] for field in fields.values())


def test_a_flow_reaches_a_stage_through_few_frames(prefect, home, tiny, monkeypatch):
    """The traceback contains every frame of ours, including those of the event loop's tasks."""
    from codedance.pipelines.flows import pipeline

    def run_curate(_context):
        raise Reached

    with_function(monkeypatch, import_module("codedance.pipelines.stages.curate"), run_curate)
    with pytest.raises(Reached) as raised:
        asyncio.run(pipeline("smoke"))
    generators = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR  # context managers
    names = [
        entry.name
        for entry in raised.traceback
        if is_ours(entry.path) and not entry.frame.code.raw.co_flags & generators
    ]
    assert names[0] == "pipeline"
    assert names[-1] == "run_among"
    assert len(names) + 1 <= MOST_FRAMES, names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pipeline", "evaluate"])
def test_a_flow_accepts_a_runs_id_or_the_parameters_of_a_new_run(prefect, finished, name):
    from codedance.pipelines import flows

    run = first_run(finished)
    flow = getattr(flows, name)
    with pytest.raises(SettingsError, match="leave the other parameters out"):
        asyncio.run(flow(run=run.id, seed=3))
    state = asyncio.run(flow(run=run.id, return_state=True))
    assert state.is_completed()
    assert first_run(finished).outputs == run.outputs


def test_a_flow_accepts_overrides(prefect, finished):
    from codedance.pipelines.flows import FLOWS

    made = asyncio.run(FLOWS["grpo"](overrides={"grpo.steps": 1}))
    assert finished.store.lineage.get(made).parameters["grpo"]["steps"] == 1


def test_a_flow_run_is_recorded_with_the_run_that_it_began(prefect, finished):
    from codedance.pipelines.flows import FLOWS
    from codedance.pipelines.runs.requests import FLOW_RUNS, RunRequest, open_pipeline

    with open("flows.yaml", "a", encoding="utf-8") as flows:
        flows.write("  mine: {extends: smoke}\n")
    asyncio.run(FLOWS["curate"](preset="mine"))
    begun = finished.store.lineage.find(stage="pipeline")[0]
    (flow_run,) = begun.outputs[FLOW_RUNS]
    with open("flows.yaml", "w", encoding="utf-8") as flows:
        flows.write("presets: [broken")
    retried = RunRequest("mine", token=flow_run)
    assert open_pipeline(finished, retried, stage="curate").id == begun.id
