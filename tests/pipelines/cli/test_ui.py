"""``codedance ui`` starts missing servers, uses running ones, and prints their addresses."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from codedance.pipelines.cli.services.ui import find_mlflow, find_prefect, newest_pages
from codedance.pipelines.runs import processes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Health(BaseHTTPRequestHandler):
    """Responds with the configured text at every path."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.words.encode())

    def log_message(self, *_):
        """Do not log."""


@contextmanager
def answering(words):
    """Yield the port of a server that responds with this text."""
    server = HTTPServer(("127.0.0.1", 0), Health)
    server.words = words
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def free_port():
    return processes.free_port()


def test_servers_that_are_not_running_are_to_be_started(home, free_port):
    mlflow, prefect = find_mlflow(home, free_port), find_prefect(home, free_port)
    assert mlflow.start.command[1:4] == ["-m", "mlflow", "ui"]
    assert f"sqlite:///{home.root}/mlflow.db" in mlflow.start.command
    assert prefect.start.command[1:5] == ["-m", "prefect", "server", "start"]
    assert mlflow.line == f"MLflow   http://127.0.0.1:{free_port}"
    assert prefect.health == f"http://127.0.0.1:{free_port}/api/health"


def test_running_servers_are_used(home):
    with answering("OK") as port:
        assert find_mlflow(home, port).start is None
    with answering("true") as port:
        pages = find_prefect(home, port)
    assert pages.start is None
    assert pages.line == f"Prefect  http://127.0.0.1:{port}  (runs already)"


def test_configured_servers_are_shown_and_not_started(home, monkeypatch, free_port):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://runs.example/")
    monkeypatch.setenv("PREFECT_API_URL", "https://me:secret@flows.example/api")
    mlflow, prefect = find_mlflow(home, free_port), find_prefect(home, free_port)
    assert mlflow.line == "MLflow   https://runs.example  (MLFLOW_TRACKING_URI)"
    assert prefect.line == "Prefect  https://flows.example  (PREFECT_API_URL)"
    assert (mlflow.start, prefect.start) == (None, None)


def test_the_error_for_a_port_of_another_program_names_the_option(home):
    with answering("hello") as port:
        with pytest.raises(ValueError, match=f"port {port}: choose one with --mlflow-port"):
            find_mlflow(home, port)
        with pytest.raises(ValueError, match="--prefect-port"):
            find_prefect(home, port)


def test_the_newest_report_and_viewer_are_named(home):
    assert newest_pages(home) == []
    for time, run, files in ((1, "a", ("report.html", "viewer.html")), (2, "b", ("report.html",))):
        (home.reports / run).mkdir(parents=True)
        for file in files:
            (home.reports / run / file).write_text("")
            os.utime(home.reports / run / file, (time, time))
    report, viewer = newest_pages(home)
    assert report == ("report", str(home.reports / "b" / "report.html"))
    assert viewer == ("viewer", str(home.reports / "a" / "viewer.html"))
