"""MLflow shows what the store and the runs' folders hold, however often it is synced."""

from __future__ import annotations

import json
import math

import mlflow
import pytest
from codedance.pipelines.config.home import prepare_environment
from codedance.pipelines.tracking.chosen_runs import chosen_runs
from codedance.pipelines.tracking.lines import LineWriter, read_lines
from codedance.pipelines.tracking.metrics_file import append_metrics
from codedance.pipelines.tracking.mlflow.address import Address, named_place
from codedance.pipelines.tracking.mlflow.runs import readable
from codedance.pipelines.tracking.mlflow.sync import (
    is_refusal,
    shortened,
    sync_runs,
)
from codedance.pipelines.tracking.mlflow.sync_thread import SyncThread
from codedance.pipelines.tracking.tracker import FIGURES_NAME, NOTE, PAGE_NAME, Tracker, read_page
from mlflow.exceptions import MlflowException, RestException

from ..makers import make_request, make_task, make_trajectory

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def tracker(home):
    return Tracker(home.stages)


def test_metrics_leave_out_what_is_no_number(home, tracker):
    tracker.metrics("run", 3, {"reward": 0.5, "kl": None, "loss": math.nan})
    tracker.metrics("run", 4, {"loss": math.inf})
    (line,) = read_lines(home.stages / "run" / FIGURES_NAME)
    assert (line["step"], line["values"]) == (3, {"reward": 0.5})
    assert tracker.touched == ["run"]


def test_of_a_page_the_later_record_counts(home, tracker):
    tracker.describe("run", "begun", tags={"a": "1", "b": "2"})
    tracker.describe("run", tags={"a": "3"})
    tracker.artifact("run", home.root / "report", folder="report")
    for digest in ("x", "x", "y"):
        tracker.dataset("run", "toy", digest=digest, profile={"tasks": 1}, use="training")
    tracker.traces("run", [1, 2], name="step 1", terms={1: {"accuracy": 1.0}})
    tracker.traces("run", [3], name="step 1")
    tracker.traces("run", [], name="step 2")
    page = read_page(home.stages / "run")
    assert page.tags == {"a": "3", "b": "2", NOTE: "begun"}
    assert page.artifacts == {str(home.root / "report"): "report"}
    assert list(page.datasets) == ["toy x", "toy y"]
    assert page.groups == {"step 1": {"trajectories": [3], "terms": {}}}


def test_experiment_and_run_are_read_as_mlflow_reads_them_and_recorded_without_the_address(
    home, monkeypatch
):
    given = {"MLFLOW_EXPERIMENT_NAME": "vision", "MLFLOW_RUN_ID": "abc", "MLFLOW_EXPERIMENT_ID": ""}
    given["MLFLOW_TRACKING_URI"] = "http://me:secret@mlflow.example"
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    place = named_place()
    assert Address("x", **place) == Address("x", "vision", None, "abc")
    Tracker(home.stages, place).describe("run")
    Tracker(home.stages).describe("run")  # resumed by a command that names none
    assert read_page(home.stages / "run").place == place
    assert "secret" not in (home.stages / "run" / PAGE_NAME).read_text()


def test_a_password_in_the_address_is_not_shown():
    assert Address("http://me:secret@mlflow.example/x").shown == "http://mlflow.example/x"
    assert Address("sqlite:////tmp/mlflow.db").shown == "sqlite:////tmp/mlflow.db"


@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (ConnectionError("away"), False),
        (OSError(28, "full"), False),
        (KeyError("kind"), True),
        (MlflowException("timed out"), False),
        (RestException({"error_code": "TEMPORARILY_UNAVAILABLE"}), False),
        (RestException({"error_code": "REQUEST_LIMIT_EXCEEDED"}), False),
        (RestException({"error_code": "PERMISSION_DENIED"}), False),
        (RestException({"error_code": "INVALID_PARAMETER_VALUE"}), True),
        (RestException({"error_code": "RESOURCE_DOES_NOT_EXIST"}), True),
        (RestException({"error_code": "FEATURE_DISABLED"}), True),
    ],
)
def test_only_what_was_looked_at_counts_as_refused(error, is_final):
    assert is_refusal(error) is is_final


def test_names_that_mlflow_would_refuse_are_made_readable():
    given = {"a/../b": 1, "/x y": 2, "50 %": 3, "é": 4, "..": 5}
    assert readable(given) == {"a/b": 1, "x y": 2, "50 _": 3, "é": 4, "unnamed": 5}


def test_a_long_description_is_cut_at_a_line_and_says_where_the_rest_is():
    text = "\n".join(f"line {n}" for n in range(2000))
    short = shortened(text)
    assert len(short) <= 5000
    assert short.endswith("report/report.md")
    assert "line 100\n" in short
    assert shortened("short") == "short"


@pytest.fixture
def recorded(home, store, tracker, monkeypatch):
    """A pipeline run with a finished training and its evaluation, never shown in MLflow."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    prepare_environment(home)
    parameters = {"suite": "toy", "sft": {"steps": 3}}
    pipeline = store.lineage.begin(make_request("pipeline", parameters=parameters))
    stage = store.lineage.begin(make_request("grpo", parameters=parameters), parent=pipeline.id)
    task = make_task()
    store.add_trajectories(
        [task], [make_trajectory(task, calls=2, failed=1)], stage_run=stage.id, phase="train"
    )
    tracker.describe(pipeline.id, "**story**", tags={"machine": "test"})
    tracker.describe(stage.id, "how it began")
    writer, folder = LineWriter(), home.stages / stage.id
    for step in range(5):
        append_metrics(writer, folder, step, {"reward": float(step)})
        tracker.metrics(stage.id, step, {"tokens_per_second": 10.0 * step})
    tracker.dataset(stage.id, "toy curated", digest="abc", profile={"tasks": 1}, use="training")
    report = home.root / "report"
    (report / "viewer").mkdir(parents=True)
    (report / "card.md").write_text("# card", encoding="utf-8")
    (report / "viewer" / "0.mjs").write_text("0", encoding="utf-8")
    tracker.artifact(stage.id, report, folder="report")
    tracker.traces(stage.id, [store.episodes(stage.id)[0].id], name="grpo step 1")
    (folder / "alarms.jsonl").write_text(
        json.dumps({"name": "entropy", "step": 4, "message": "entropy collapses"}) + "\n"
    )
    model = home.root / "model"
    model.mkdir()
    (model / "config.json").write_text("{}", encoding="utf-8")
    store.lineage.mark(stage.id, "finished", outputs={"model": str(model)})
    evaluation = store.lineage.begin(
        make_request("evaluate", parameters=parameters, inputs={"grpo": stage.id}),
        parent=pipeline.id,
    )
    found = {"run": evaluation.id, "policies": {"grpo": {"task-1": 1.0, "task-2": 0.0}}}
    (home.stages / evaluation.id).mkdir()
    (home.stages / evaluation.id / "held_out.json").write_text(json.dumps(found))
    tracker.touch(evaluation.id)
    store.lineage.mark(evaluation.id, "finished")
    outputs = {"grpo": stage.id, "evaluate": evaluation.id}
    store.lineage.mark(pipeline.id, "finished", outputs=outputs)
    return pipeline.id


def contents(home):
    """Return all that MLflow shows, by our names, without its own ids and times."""
    client = mlflow.MlflowClient(home.mlflow_uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "codedance"]
    place = [experiment.experiment_id]
    names, found = {}, {}
    for run in client.search_runs(place):
        assert run.info.run_name not in found, "a run stands there twice"
        names[run.info.run_id] = run.info.run_name
        found[run.info.run_name] = {
            "status": run.info.status,
            "parameters": run.data.params,
            "tags": dict(run.data.tags),
            "metrics": {
                name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            },
            "datasets": [one.dataset.name for one in run.inputs.dataset_inputs],
            "artifacts": sorted(artifacts(client, run.info.run_id)),
            "traces": [
                (trace.info.tags["codedance.trajectory"], [span.name for span in trace.data.spans])
                for trace in client.search_traces(locations=place, run_id=run.info.run_id)
            ],
        }
    for run in found.values():
        if parent := run["tags"].get("mlflow.parentRunId"):
            run["tags"]["mlflow.parentRunId"] = names[parent]
    models = client.search_logged_models(place)
    (version,) = client.search_model_versions("name = 'codedance-toy'")
    tags = {name: names.get(value, value) for name, value in version.tags.items()}
    aliases = sorted(client.get_registered_model("codedance-toy").aliases)
    return found, [one.name for one in models], tags, aliases


def artifacts(client, run_id, folder=None):
    for one in client.list_artifacts(run_id, folder):
        if one.is_dir:
            yield from artifacts(client, run_id, one.path)
        else:
            yield one.path


def sync_all(home, store, pipeline):
    said = []
    assert sync_runs(home, store, chosen_runs(store.lineage, [pipeline]), said.append) == 0
    return said


def test_a_sync_shows_everything_and_a_second_one_changes_nothing(home, store, recorded):
    said = sync_all(home, store, recorded)
    assert len(said) == 3
    first = contents(home)
    assert sync_all(home, store, recorded) == said
    assert contents(home) == first
    found, models, version, aliases = first
    stages = {run.stage: run.id for run in store.lineage.find()}
    assert set(found) == set(stages.values())
    pipeline, stage = found[recorded], found[stages["grpo"]]
    assert pipeline["parameters"] == {"suite": "toy", "sft.steps": "3"}
    assert pipeline["tags"]["mlflow.note.content"] == "**story**"
    assert pipeline["tags"]["codedance.stage.grpo"] == stages["grpo"]
    assert pipeline["tags"]["machine"] == "test"
    assert stage["tags"]["mlflow.parentRunId"] == recorded
    assert stage["tags"]["codedance.alarm.entropy"] == "step 4: entropy collapses"
    assert {run["status"] for run in found.values()} == {"FINISHED"}
    assert stage["metrics"] == {
        "reward": [(n, float(n)) for n in range(5)],
        "tokens_per_second": [(n, 10.0 * n) for n in range(5)],
    }
    assert stage["datasets"] == ["toy curated"]
    assert stage["artifacts"] == ["report/card.md", "report/viewer/0.mjs"]
    ((_, spans),) = stage["traces"]
    assert spans.count("sandbox") == 2
    assert {"turn 1", "turn 2", "turn 3"} <= set(spans)
    assert models == ["grpo"]
    assert version["codedance.verdict"] == "the first champion, judged on 2 tasks"
    assert aliases == ["champion", "reinforced"]


def test_what_a_run_adds_later_is_added_and_a_repeated_step_is_not(home, store, tracker, recorded):
    sync_all(home, store, recorded)
    (stage,) = store.lineage.find(stage="grpo")
    for step in range(3, 8):  # killed after step 4, resumed from the state of step 2
        append_metrics(LineWriter(), home.stages / stage.id, step, {"reward": float(step)})
    tracker.describe(stage.id, "how it ended")
    sync_all(home, store, recorded)
    found = contents(home)[0][stage.id]
    assert sorted(found["metrics"]["reward"]) == [(n, float(n)) for n in range(8)]
    assert found["tags"]["mlflow.note.content"] == "how it ended"


@pytest.mark.slow
def test_a_thread_says_how_to_catch_up_with_what_mlflow_lacks(
    home, store, tracker, recorded, monkeypatch
):
    said: list[str] = []
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        address = Address("http://127.0.0.1:9")
        SyncThread(home, store, tracker, address, say=said.append).close()
    assert any("cannot be reached" in line for line in said)
    assert f"`codedance mlflow sync {recorded}`" in said[-1]
    said.clear()
    SyncThread(home, store, tracker, Address(home.mlflow_uri), say=said.append).close()
    assert said == []
    assert len(contents(home)[0]) == 3


def test_what_mlflow_rejects_holds_up_nothing(home, store, tracker, recorded):
    (stage,) = store.lineage.find(stage="grpo")
    tracker.artifact(stage.id, home.root / "gone.md")
    tracker.metrics(stage.id, 0, {"late": 1.0})
    said: list[str] = []
    assert sync_runs(home, store, [stage], said.append) == 1
    assert sum("MLflow rejected" in line and "gone.md" in line for line in said) == 1
    assert contents(home)[0][stage.id]["metrics"]["late"] == [(0, 1.0)]
