"""What a trace in MLflow holds: the right answer, and who took how long."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import mlflow
import pytest
from codedance.pipelines.config.home import Home, prepare_environment
from codedance.pipelines.store.store import open_store
from codedance.pipelines.tracking.mlflow import traces as mlflow_traces
from codedance.pipelines.tracking.mlflow.address import Address
from codedance.pipelines.tracking.mlflow.database import make_database
from codedance.pipelines.tracking.mlflow.sync import MlflowSync
from codedance.pipelines.tracking.tracker import Tracker

from ..makers import make_request, make_task, make_trajectory

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, many and none of ours
TRUTH = "seventeen-blue"


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A home whose MLflow has a database."""
    before = dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    home = Home(tmp_path_factory.mktemp("traced"))
    prepare_environment(home)
    make_database(home.mlflow_uri)
    try:
        yield home
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def trace(traced):
    """The trace of a trajectory of two turns, the first of which was timed."""
    task = make_task(answer=TRUTH, question="How many?")
    one = make_trajectory(task, answer="3", accuracy=0.0)
    timed = (replace(one.turns[0], generation_seconds=2.0), *one.turns[1:])
    with open_store(traced) as store:
        run, said = send(traced, store, [task], [replace(one, turns=timed)], name="grpo step 0")
    assert said == []
    (found,) = traces_of(traced, run)
    return found


def send(home, store, tasks, trajectories, *, name, run=None, groups=1):
    """Send a group of trajectories of a run; give the run and what the sender said."""
    if run is None:
        run = store.lineage.begin(make_request("grpo"))
        store.add_trajectories(tasks, trajectories, stage_run=run.id, phase="train")
    tracker, said = Tracker(home.stages), []
    for _ in range(groups):
        tracker.traces(run.id, [one.id for one in store.episodes(run.id)], name=name)
        MlflowSync(home, store, Address(home.mlflow_uri), said.append).sync(run.id)
    return run, said


def traces_of(home, run):
    client = mlflow.MlflowClient(home.mlflow_uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    (known,) = client.search_runs(experiments, f"tags.`codedance.run` = '{run.id}'")
    return client.search_traces(locations=experiments, run_id=known.info.run_id)


def test_the_right_answer_stands_beside_the_trace_and_in_none_of_its_messages(trace):
    expected = {a.name: a.expectation.value for a in trace.info.assessments if a.expectation}
    assert expected == {"expected_response": TRUTH}
    assert trace.info.tags["right_answer"] == TRUTH
    assert TRUTH not in json.dumps([span.to_dict() for span in trace.data.spans])


def test_a_turn_lasts_as_long_as_policy_and_sandbox_took(trace):
    spans = {span.name: span for span in trace.data.spans}
    first, ran, second = spans["turn 1"], spans["sandbox"], spans["turn 2"]
    assert first.end_time_ns - first.start_time_ns == 2_250_000_000  # 2 s and a quarter
    assert ran.start_time_ns - first.start_time_ns == 2_000_000_000
    assert ran.end_time_ns - ran.start_time_ns == 250_000_000
    assert first.attributes["generation_seconds"] == 2.0
    assert second.end_time_ns - second.start_time_ns == 1_000_000  # nobody measured it
    assert "generation_seconds" not in second.attributes
    assert second.start_time_ns == first.end_time_ns


def test_images_are_attachments_and_tokens_are_counted_by_turn(trace):
    spans = {span.name: span for span in trace.data.spans}
    (root,) = (span for span in trace.data.spans if span.parent_id is None)
    (question,) = root.inputs["messages"]
    assert [part["type"] for part in question["content"]] == ["image_url", "text"]
    shown = [question["content"][0]["image_url"]["url"], *spans["sandbox"].outputs["images"]]
    assert len(shown) == 2
    assert all(address.startswith("mlflow-attachment://") for address in shown)
    counted = [spans[f"turn {n}"].attributes["mlflow.chat.tokenUsage"] for n in (1, 2)]
    assert counted == [
        {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
        {"input_tokens": 2, "output_tokens": 1, "total_tokens": 3},
    ]


def test_a_trajectory_that_a_resumed_run_replaced_is_left_out(traced):
    tasks, gone = [make_task()], 10**6
    with open_store(traced) as store:
        run, _ = send(traced, store, tasks, [make_trajectory(tasks[0])], name="grpo step 1")
        ids = [one.id for one in store.episodes(run.id)]
        Tracker(traced.stages).traces(run.id, [gone, *ids], name="grpo step 11")
        said = []
        MlflowSync(traced, store, Address(traced.mlflow_uri), said.append).sync(run.id)
    assert said == []
    keys = sorted(found.info.tags["codedance.trajectory"] for found in traces_of(traced, run))
    assert keys == [f"grpo step {step}/0/{tasks[0].id}" for step in (1, 11)]


@pytest.mark.parametrize("name", ["a large group", "it's", 'it\'s "quoted" `so`/greedy'])
def test_a_group_of_more_than_a_page_is_sent_once_whatever_its_name(traced, monkeypatch, name):
    monkeypatch.setattr(mlflow_traces, "MOST_TRACES", 3)
    tasks = [make_task(number) for number in range(5)]
    with open_store(traced) as store:
        made = [make_trajectory(task) for task in tasks]
        run, said = send(traced, store, tasks, made, name=name, groups=2)
        assert said == []  # "2 of 5 traces did not arrive"
        assert send(traced, store, tasks, made, name=name, run=run) == (run, [])
    keys = sorted(found.info.tags["codedance.trajectory"] for found in traces_of(traced, run))
    assert keys == [f"{name}/{place}/{task.id}" for place, task in enumerate(tasks)]


def test_groups_of_a_run_are_told_apart_though_their_trajectories_are_the_same(traced):
    tasks = [make_task()]
    with open_store(traced) as store:
        made = [make_trajectory(tasks[0])]
        run, _ = send(traced, store, tasks, made, name="sft's/greedy")
        _, said = send(traced, store, tasks, made, name="sft's/sampled", run=run)
    assert said == []
    keys = sorted(found.info.tags["codedance.trajectory"] for found in traces_of(traced, run))
    assert keys == [f"sft's/{name}/0/{tasks[0].id}" for name in ("greedy", "sampled")]
