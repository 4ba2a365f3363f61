"""Nothing told to MLflow is lost, doubled, or waited for."""

from __future__ import annotations

import json
import math

import pytest
from codedance.pipelines.config.home import prepare_environment
from codedance.pipelines.store.lineage import StageRun
from codedance.pipelines.tracking.mlflow.sender import OutboxSending, Sender
from codedance.pipelines.tracking.outbox import OutboxReader, claim
from codedance.pipelines.tracking.tracker import Tracker

from .makers import make_request, make_task, make_trajectory

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def tracker(home):
    opened = Tracker(home.outbox)
    yield opened
    opened.close()


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_metrics_leave_out_what_is_no_number(tracker):
    tracker.metrics("run", 3, {"reward": 0.5, "kl": None, "loss": math.nan})
    tracker.metrics("run", 4, {"loss": math.inf})
    (event,) = lines(tracker.path)
    assert (event["step"], event["values"]) == (3, {"reward": 0.5})


def test_tracker_without_a_folder_keeps_nothing(tmp_path):
    tracker = Tracker(None)
    tracker.metrics("run", 1, {"a": 1.0})
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_file_of_a_living_writer_is_left_to_it(tracker):
    tracker.metrics("run", 1, {"a": 1.0})
    with claim(tracker.path) as is_mine:
        assert not is_mine
    tracker.close()
    with claim(tracker.path) as is_mine:
        assert is_mine
        with claim(tracker.path) as is_anothers:
            assert not is_anothers


def test_reader_goes_on_behind_what_was_sent(tmp_path):
    path = tmp_path / "spool.jsonl"
    path.write_text('{"kind": "a"}\n{"kind": "b"}\n{"kind": "half', encoding="utf-8")
    reader = OutboxReader(path)
    events = reader.read()
    assert [event["kind"] for event, _ in events] == ["a", "b"]
    reader.mark(events[0][1])
    again = OutboxReader(path)
    assert [event["kind"] for event, _ in again.read()] == ["b"]
    assert not again.is_done


def test_line_spoilt_by_a_full_disk_is_passed_over(tmp_path):
    path = tmp_path / "spool.jsonl"
    path.write_text('{"kind": "me{"kind": "b"}\n{"kind": "c"}\n', encoding="utf-8")
    assert [event["kind"] for event, _ in OutboxReader(path).read()] == ["broken", "c"]


@pytest.fixture
def told(home, store, tracker, monkeypatch):
    """Two stage runs with figures, told while MLflow was away (its address leads nowhere)."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    prepare_environment(home)
    pipeline = store.lineage.begin(make_request("pipeline", parameters={"sft": {"steps": 3}}))
    stage = store.lineage.begin(make_request("grpo"), parent=pipeline.id)
    task = make_task()
    store.add_trajectories(
        [task], [make_trajectory(task, calls=2, failed=1)], stage_run=stage.id, phase="train"
    )
    tracker.begin(pipeline, tags={"machine": "test"}, description="**story**")
    tracker.begin(stage, tags={})
    for step in range(5):
        tracker.metrics(stage.id, step, {"reward": float(step)})
    tracker.dataset(stage.id, "toy curated", digest="abc", profile={"tasks": 1}, use="training")
    card = home.root / "card.md"
    card.write_text("# card", encoding="utf-8")
    tracker.artifact(stage.id, card)
    tracker.traces(stage.id, [store.episodes(stage.id)[0].id], name="grpo step 1")
    tracker.tag(stage.id, "codedance.alarm.entropy", "step 4: entropy collapses")
    tracker.end(stage, "finished")
    return tracker, pipeline, stage


def test_what_waited_is_sent_once_mlflow_is_back(home, store, told, monkeypatch):
    tracker, pipeline, stage = told
    said: list[str] = []
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        Sender(home, store, tracker, say=said.append).close()
    assert any("wait in" in line for line in said)

    for _ in range(2):  # a second command finds nothing left to send
        OutboxSending(home, store, said.append).drain(at_once=True)
    assert list(home.outbox.iterdir()) == []
    check_mlflow(home, pipeline, stage)


def check_mlflow(home, pipeline: StageRun, stage: StageRun):
    import mlflow

    client = mlflow.MlflowClient(home.mlflow_uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "codedance"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {pipeline.id, stage.id}
    parent, child = runs[pipeline.id], runs[stage.id]
    assert parent.data.params == {"sft.steps": "3"}
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["codedance.alarm.entropy"] == "step 4: entropy collapses"
    assert child.info.status == "FINISHED"
    history = client.get_metric_history(child.info.run_id, "reward")
    assert [(m.step, m.value) for m in history] == [(n, float(n)) for n in range(5)]
    assert [d.dataset.name for d in child.inputs.dataset_inputs] == ["toy curated"]
    assert [a.path for a in client.list_artifacts(child.info.run_id)] == ["card.md"]
    (trace,) = client.search_traces(locations=[experiment.experiment_id])
    names = [span.name for span in trace.data.spans]
    assert names.count("sandbox") == 2
    assert {"turn 1", "turn 2", "turn 3"} <= set(names)
    assert "mlflow-attachment://" in json.dumps([s.to_dict() for s in trace.data.spans])
