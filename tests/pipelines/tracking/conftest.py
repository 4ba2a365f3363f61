"""Fixture of the tracking's tests: an MLflow server per module."""

from __future__ import annotations

import pytest

from ..mlflow_server import MlflowServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    opened = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    opened.start()
    yield opened
    opened.kill()
