"""How a stage run and its pipeline run end, whatever ends the process."""

from __future__ import annotations

import errno

import pytest
from codedance.pipelines.cli.exit_codes import FAILED
from codedance.pipelines.cli.training import stages
from codedance.pipelines.config.registry import stage_names
from codedance.pipelines.config.server_settings import TrackingSettings
from codedance.pipelines.runs.context import StageResult
from codedance.pipelines.runs.recording import recorded
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.runner import run_stage
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.store.claims import working_for
from codedance.pipelines.store.connection.errors import StoreFullError
from codedance.pipelines.store.lineage import Lineage
from codedance.pipelines.tracking import lines
from codedance.pipelines.tracking.tracker import FIGURES_NAME, NOTE, read_page

from ..makers import make_request
from ..tiny_runs import first_run

write = lines.append_line


class Killed(BaseException):
    """The process ends here; nothing after it counts."""


@pytest.mark.slow
def test_a_process_killed_after_the_finished_mark_leaves_a_whole_page(home, tiny, monkeypatch):
    mark = Lineage.mark

    def mark_and_die(lineage, run_id, status, **values):
        mark(lineage, run_id, status, **values)
        if status == "finished":
            raise Killed

    with open_session(home, track=False) as session:
        pipeline = open_pipeline(session, RunRequest("smoke"))
        with monkeypatch.context() as patch:
            patch.setattr(Lineage, "mark", mark_and_die)
            with pytest.raises(Killed):
                run_stage(session, "curate", pipeline)
        (run,) = session.store.lineage.find(stage="curate")
        assert run.is_finished
        page = read_page(home.stages / run.id)
        assert "Finished after" in page.tags[NOTE]
        assert page.tags["codedance.data_digest"]
        assert list(page.artifacts) == [run.outputs["card"]]
        session.tracker.touched.clear()
        assert run_stage(session, "curate", pipeline) == run
        assert run.id in session.tracker.touched  # for MLflow, which may not know yet


def no_space_for_figures(path, line):
    if path.name == FIGURES_NAME:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    write(path, line)


def work(session, run):
    with recorded(session, run, TrackingSettings()) as results:
        session.tracker.metrics(run.id, 3, {"reward": 1.0})
        results.append(StageResult({}))


def test_a_stage_whose_last_lines_find_no_space_fails_and_loses_none(home, monkeypatch):
    with open_session(home, track=False) as session:
        run = session.store.lineage.begin(make_request("sft"))
        monkeypatch.setattr(lines, "append_line", no_space_for_figures)
        with pytest.raises(StoreFullError, match="free some"):
            work(session, run)
        assert session.store.lineage.get(run.id).status == "failed"
        monkeypatch.setattr(lines, "append_line", write)
        with recorded(session, run, TrackingSettings()) as results:
            results.append(StageResult({}))
        assert session.store.lineage.get(run.id).status == "finished"
    figures = lines.read_lines(home.stages / run.id / FIGURES_NAME)
    assert {"reward": 1.0} in [line["values"] for line in figures]


@pytest.mark.slow
def test_a_run_is_running_until_its_command_ends(codedance, finished, monkeypatch):
    before = []

    def run_and_look(session, stage, pipeline):
        before.append((stage, session.store.lineage.get(pipeline.id).status))
        return run_stage(session, stage, pipeline)

    monkeypatch.setattr(stages, "run_stage", run_and_look)
    words = ("--preset", "smoke", "--no-prefect")
    assert codedance("run", *words, "--set", "evaluate.limit=4")[0] == 0
    assert before == [(stage, "running") for stage in stage_names()]
    run = finished.store.lineage.find(stage="pipeline")[0]
    assert run.id != first_run(finished).id
    assert run.is_finished


def test_a_failed_command_marks_a_run_unless_another_works_for_it(codedance, finished, monkeypatch):
    def fail(*_):
        raise OSError("no such device")

    monkeypatch.setattr(stages, "run_stage", fail)
    words = ("curate", "--preset", "smoke", "--seed", "1", "--no-prefect")
    assert codedance(*words)[0] == FAILED
    run = finished.store.lineage.find(stage="pipeline")[0]
    assert (run.status, run.error) == ("failed", "no such device")
    with working_for(finished.store.database, run.id):
        assert codedance(*words)[0] == FAILED
        assert finished.store.lineage.get(run.id).status == "running"
