"""A stage run is marked as finished only when everything that it recorded is on disk."""

from __future__ import annotations

import errno

import pytest
from codedance.pipelines.runs.context import StageResult
from codedance.pipelines.runs.recording import recorded
from codedance.pipelines.runs.session import open_session
from codedance.pipelines.store.connection.errors import StoreFullError
from codedance.pipelines.tracking import lines
from codedance.pipelines.tracking.tracker import FIGURES_NAME

from ..makers import make_request

write = lines.append_line


def no_space_for_figures(path, line):
    if path.name == FIGURES_NAME:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    write(path, line)


def work(session, run):
    with recorded(session, run) as results:
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
        with recorded(session, run) as results:
            results.append(StageResult({}))
        assert session.store.lineage.get(run.id).status == "finished"
    figures = lines.read_lines(home.stages / run.id / FIGURES_NAME)
    assert {"reward": 1.0} in [line["values"] for line in figures]
