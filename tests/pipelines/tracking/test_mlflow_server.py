"""Against a real MLflow server: killed half-way, asked twice, given a run, with a champion."""

from __future__ import annotations

import json
import time

import mlflow
import pytest
from codedance.pipelines.config.home import prepare_environment
from codedance.pipelines.store.store import open_store
from codedance.pipelines.tracking.metrics_file import append_metrics
from codedance.pipelines.tracking.mlflow.address import Address
from codedance.pipelines.tracking.mlflow.models import registered_name
from codedance.pipelines.tracking.mlflow.sync import MlflowSync
from codedance.pipelines.tracking.mlflow.sync_thread import SyncThread
from codedance.pipelines.tracking.tracker import Tracker

from ..makers import make_request, make_task, make_trajectory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore"),
]
STEPS = 30


@pytest.fixture
def client(server, home, monkeypatch):
    """A client of the server, which every command of the test is pointed at."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    prepare_environment(home)
    return mlflow.MlflowClient(server.address)


@pytest.fixture
def impatient(monkeypatch):
    """A thread that does not wait long between two tries."""
    monkeypatch.setattr("codedance.pipelines.tracking.mlflow.sync_thread.PERIOD_SECONDS", 0.2)
    monkeypatch.setattr("codedance.pipelines.tracking.mlflow.sync_thread.RETRY_SECONDS", 0.5)


def synced(home, store, address, *runs):
    """Bring MLflow up to date with runs, by a new process as it were."""
    sync = MlflowSync(home, store, address, print)
    for run in runs:
        sync.sync(run.id)


def begin_runs(store, tracker, **parameters):
    pipeline = store.lineage.begin(make_request("pipeline", parameters=parameters))
    stage = store.lineage.begin(make_request("grpo", parameters=parameters), parent=pipeline.id)
    tracker.describe(pipeline.id, "**story**", tags={"machine": "test"})
    tracker.describe(stage.id, "how it began", tags={"codedance.git_commit": "abc"})
    return pipeline, stage


def record_step(home, tracker, stage, step):
    values = {"reward": step / 2, "rewards/format/mean": 0.0}
    append_metrics(tracker.writer, home.stages / stage.id, step, values)


def record_group(store, tracker, stage, step):
    task = make_task(step)
    made = [make_trajectory(task, calls=2, failed=1), make_trajectory(task, accuracy=0.0)]
    store.add_trajectories([task], made, stage_run=stage.id, phase="train", step=step)
    ids = [e.id for e in store.episodes(stage.id) if e.step == step]
    tracker.traces(stage.id, ids, name=f"grpo step {step}")


def record_rest(home, store, tracker, stage):
    card = home.root / "card.md"
    card.write_text("# card", encoding="utf-8")
    tracker.artifact(stage.id, card)
    tracker.dataset(stage.id, "toy curated", digest="abc", profile={"tasks": 1}, use="training")
    tracker.describe(stage.id, "how it ended")
    store.lineage.mark(stage.id, "finished", outputs={"model": make_model(home)})


def make_model(home):
    model = home.root / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}", encoding="utf-8")
    return str(model)


def wait_until(claim, seconds=120):
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def find_run(client, name):
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, filter_string=f"tags.`codedance.run` = '{name}'")
    assert len(found) == 1, f"{len(found)} runs stand for {name}"
    return found[0]


def check_whole(client, store, stage, steps):
    run = find_run(client, stage.id)
    history = client.get_metric_history(run.info.run_id, "reward")
    assert sorted(m.step for m in history) == list(range(steps)), "a step is lost or doubled"
    assert all(m.value == m.step / 2 for m in history)
    traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
    keys = [trace.info.tags["codedance.trajectory"] for trace in traces]
    assert len(keys) == len(set(keys)) == len(store.episodes(stage.id))
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.note.content"] == "how it ended"
    assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["card.md"]
    assert [d.dataset.name for d in run.inputs.dataset_inputs] == ["toy curated"]
    query = f"source_run_id = '{run.info.run_id}'"
    models = client.search_logged_models([run.info.experiment_id], filter_string=query)
    assert [model.name for model in models] == ["grpo"]
    name = registered_name(stage.parameters["suite"])
    versions = client.search_model_versions(f"name = '{name}'")
    assert len(versions) == 1
    return traces


def test_a_server_killed_in_the_middle_gets_everything_once(server, client, home, impatient):
    said: list[str] = []
    address = Address(server.address, "killed")
    with open_store(home) as store:
        tracker = Tracker(home.stages)
        pipeline, stage = begin_runs(store, tracker, suite="killed")
        thread = SyncThread(home, store, tracker, address, say=said.append)
        longest = 0.0
        for step in range(STEPS):
            begun = time.perf_counter()
            record_step(home, tracker, stage, step)
            longest = max(longest, time.perf_counter() - begun)
            if step % 10 == 1:
                record_group(store, tracker, stage, step)
            if step == 9:
                wait_until(lambda: client.search_experiments(filter_string="name = 'killed'"))
                server.kill()
            if step == 19:
                wait_until(lambda: any("cannot be reached" in line for line in said))
                server.start()
            time.sleep(0.05)
        record_rest(home, store, tracker, stage)
        thread.close()
        assert longest < 0.5, "training waited for MLflow"
        synced(home, store, address, pipeline, stage)
        traces = check_whole(client, store, stage, STEPS)
    check_feedback(traces)


def check_feedback(traces):
    right = next(t for t in traces if t.info.tags["accuracy"] == "1.0")
    told = [a for a in right.info.assessments if a.span_id is None]
    values = {a.name: a.feedback.value for a in told if a.feedback is not None}
    assert values["accuracy"] == 1.0
    assert values["format"] == -0.2
    assert [a.expectation.value for a in told if a.expectation is not None] == ["3"]
    by_turn = [a for a in right.info.assessments if a.name == "tool_turn" and a.span_id]
    failed = [span for span in right.data.spans if span.name == "turn 1"]
    assert [a.span_id for a in by_turn] == [failed[0].span_id]
    assert by_turn[0].feedback.value == pytest.approx(-0.1)
    names = [span.name for span in right.data.spans]
    assert names.count("sandbox") == 2
    assert {"turn 1", "turn 2", "turn 3"} <= set(names)
    assert "mlflow-attachment://" in json.dumps([span.to_dict() for span in right.data.spans])


def test_a_run_resumed_after_a_kill_and_synced_again_and_again_is_whole(server, client, home):
    address = Address(server.address, "again")
    with open_store(home) as store:
        tracker = Tracker(home.stages)
        pipeline, stage = begin_runs(store, tracker, suite="again", sft={"steps": 3})
        for step in range(5):
            record_step(home, tracker, stage, step)
        record_group(store, tracker, stage, 1)
        store.lineage.mark(stage.id, "interrupted")
        for _ in range(2):
            synced(home, store, address, pipeline, stage)
        assert find_run(client, stage.id).info.status == "KILLED"
        store.lineage.mark(stage.id, "running")
        synced(home, store, address, stage)
        assert find_run(client, stage.id).info.status == "RUNNING"
        for step in range(3, 8):  # killed after step 4, resumed from the state of step 2
            record_step(home, tracker, stage, step)
        record_rest(home, store, tracker, stage)
        for _ in range(2):
            synced(home, store, address, pipeline, stage)
        check_whole(client, store, stage, 8)
    parent = find_run(client, pipeline.id)
    assert parent.data.params == {"suite": "again", "sft.steps": "3"}
    child = find_run(client, stage.id)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_given_run_and_experiment_are_used_as_they_are(server, client, home):
    experiment = client.create_experiment("theirs", tags={"owner": "them"})
    given = client.create_run(
        experiment, run_name="nightly 7", tags={"mlflow.note.content": "mine"}
    )
    client.log_param(given.info.run_id, "sft.steps", "their own value")
    with open_store(home) as store:
        tracker = Tracker(home.stages)
        pipeline, stage = begin_runs(store, tracker, sft={"steps": 3}, seed=1)
        tracker.metrics(pipeline.id, 0, {"sft/greedy/accuracy": 0.5})
        store.lineage.mark(pipeline.id, "finished")
        address = Address(server.address, None, None, given.info.run_id)
        for _ in range(2):
            synced(home, store, address, pipeline, stage)
    run = client.get_run(given.info.run_id)
    assert find_run(client, pipeline.id).info.run_id == run.info.run_id
    assert run.info.run_name == "nightly 7"
    assert run.data.tags["mlflow.note.content"] == "mine"
    assert run.data.tags["machine"] == "test"
    assert run.data.params == {"sft.steps": "their own value", "seed": "1"}
    assert run.data.metrics == {"sft/greedy/accuracy": 0.5}
    child = find_run(client, stage.id)
    assert child.info.experiment_id == experiment
    assert child.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert client.get_experiment(experiment).tags["owner"] == "them"


def judge(home, store, server, results):
    """Register a checkpoint that did so on the held-out tasks; give its stage run's id."""
    parameters = {"suite": "toy"}
    maker = store.lineage.begin(make_request("grpo", parameters=parameters))
    store.lineage.mark(maker.id, "finished", outputs={"model": make_model(home)})
    inputs = {"grpo": maker.id}
    evaluation = store.lineage.begin(make_request("evaluate", parameters=parameters, inputs=inputs))
    folder = home.stages / evaluation.id
    folder.mkdir(parents=True)
    found = {f"task-{n}": float(right) for n, right in enumerate(results)}
    content = {"run": evaluation.id, "policies": {"grpo": found}}
    (folder / "held_out.json").write_text(json.dumps(content))
    store.lineage.mark(evaluation.id, "finished")
    for _ in range(2):
        synced(home, store, Address(server.address, "champions"), maker, evaluation)
    return maker.id


def test_only_a_better_checkpoint_becomes_the_champion(server, client, home):
    def champion():
        version = client.get_model_version_by_alias("codedance-toy", "champion")
        return version.tags["codedance.stage_run"]

    with open_store(home) as store:
        first = judge(home, store, server, [1] * 10 + [0] * 20)
        assert champion() == first
        judge(home, store, server, [1] * 12 + [0] * 18)  # two more right: it may be chance
        assert champion() == first
        judge(home, store, server, [1] * 30 + [1] * 30)  # other tasks
        assert champion() == first
        better = judge(home, store, server, [1] * 20 + [0] * 10)
        assert champion() == better
        judge(home, store, server, [0] * 10 + [1] * 5 + [0] * 15)
        assert champion() == better
    versions = client.search_model_versions("name = 'codedance-toy'")
    verdicts = {v.tags["codedance.stage_run"]: v.tags["codedance.verdict"] for v in versions}
    assert verdicts[better].startswith(
        "against version 1: 30 tasks paired: better on 10, worse on 0"
    )
    assert any("not comparable" in verdict for verdict in verdicts.values())
    newest = client.get_model_version_by_alias("codedance-toy", "reinforced")
    assert newest.version == str(len(versions))
