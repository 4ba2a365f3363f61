"""Fixtures of the viewer's tests: a session, and a pipeline run with trajectories."""

from __future__ import annotations

import pytest

from .viewed import begin_pipeline, fill, open_viewer_session


@pytest.fixture
def session(home):
    with open_viewer_session(home) as opened:
        yield opened


@pytest.fixture
def run(session):
    pipeline, grpo, evaluate = begin_pipeline(session.store)
    fill(session.store, grpo, evaluate)
    return pipeline
