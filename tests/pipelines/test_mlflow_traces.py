"""What a trace in MLflow holds: the right answer, and who took how long."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import mlflow
import pytest
from codedance.pipelines.home import Home, prepare_environment
from codedance.pipelines.mlflow_database import make_database
from codedance.pipelines.mlflow_sender import SpoolSending
from codedance.pipelines.spool import Address
from codedance.pipelines.store import open_store
from codedance.pipelines.tracking import Tracker

from .makers import make_request, make_task, make_trajectory

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, many and none of ours
TRUTH = "seventeen-blue"


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """The trace of a trajectory of two turns, the first of which was timed."""
    before = dict(os.environ)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        yield send(Home(tmp_path_factory.mktemp("traced")))
    finally:
        os.environ.clear()
        os.environ.update(before)


def send(home):
    prepare_environment(home)
    make_database(home.mlflow_uri)
    task = make_task(answer=TRUTH, question="How many?")
    one = make_trajectory(task, answer="3", accuracy=0.0)
    timed = (replace(one.turns[0], generation_seconds=2.0), *one.turns[1:])
    with open_store(home) as store:
        run = store.lineage.begin(make_request("grpo"))
        store.add_trajectories([task], [replace(one, turns=timed)], stage_run=run.id, phase="train")
        address = Address.of_environment(home.mlflow_uri)
        tracker = Tracker(home.spool, address=address)
        tracker.begin(run, tags={}, description="")
        tracker.traces(run.id, [store.episodes(run.id)[0].id], name="grpo step 0")
        tracker.end(run, "finished")
        tracker.close()
        SpoolSending(home, store, print).drain(at_once=True)
    client = mlflow.MlflowClient(home.mlflow_uri)
    experiments = [one.experiment_id for one in client.search_experiments()]
    (found,) = client.search_traces(locations=experiments)
    return found


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
