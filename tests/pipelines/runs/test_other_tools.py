"""The stages of a run are shown in the tools that `tracking.also` names."""

from __future__ import annotations

import pytest
from codedance.pipelines.runs.context import StageResult
from codedance.pipelines.runs.requests import RunRequest, open_pipeline
from codedance.pipelines.runs.runner import StageError, run_stage
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.stages import curate
from codedance.pipelines.tracking.sinks import feed, sink

from ..tiny_runs import with_function
from ..tracking.sink_readers import read_tensorboard

pytestmark = pytest.mark.filterwarnings("ignore")  # of the tool's client
SHOWN = {"tracking.also": ("tensorboard",)}


def test_a_stage_is_shown_and_showing_it_elsewhere_reruns_nothing(home, tiny, monkeypatch):
    def curated(context):
        context.tracker.metrics(context.run.id, 0, {"kept": 3.0})
        return StageResult({})

    with_function(monkeypatch, curate, curated)
    monkeypatch.setattr(feed, "LAST_CHANCE_SECONDS", 120.0)  # the client's import, when busy
    with open_session(home, track=False) as session:
        shown = open_pipeline(session, RunRequest("smoke", overrides=SHOWN))
        run = run_stage(session, "curate", shown)
        (points,) = read_tensorboard(home.root).values()
        assert points == [("kept", 0, 3.0)]
        assert (home.root / "tensorboard" / shown.id / run.id).is_dir()
        hidden = open_pipeline(session, RunRequest("smoke"))
        assert hidden.id != shown.id
        assert run_stage(session, "curate", hidden) == run


def test_a_missing_tool_is_an_error_before_the_stage_begins(home, tiny, monkeypatch):
    monkeypatch.setattr(sink, "find_spec", lambda name: None)
    with open_session(home, track=False) as session:
        pipeline = open_pipeline(session, RunRequest("smoke", overrides=SHOWN))
        with pytest.raises(StageError, match=r"codedance\[tensorboard\]"):
            run_stage(session, "curate", pipeline)
        assert session.store.lineage.find(stage="curate") == []
