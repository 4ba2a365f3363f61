"""Fixtures of this room: a home of its own for each test, and one finished run for all."""

from __future__ import annotations

import pytest
from codedance.pipelines.home import Home
from codedance.pipelines.store import open_store


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("CODEDANCE_STORE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CODEDANCE_DIR", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


@pytest.fixture
def store(home):
    with open_store(home) as opened:
        yield opened
