"""The doctor checks the configured servers."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import pytest
from codedance.pipelines.cli.services.server_checks import check_servers

PREFECT, MLFLOW = version("prefect"), version("mlflow")


class Answers(BaseHTTPRequestHandler):
    """Responds to each path with a status and body set by the test."""

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        status, text = self.server.answers.get(self.path, (404, "{}"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = answer  # noqa: N815 - the base class's names

    def log_message(self, *_):
        """Do not log."""


@pytest.fixture
def serve():
    """Start a server with configured responses; return its address and its requests."""
    servers = []

    def start(answers):
        server = HTTPServer(("127.0.0.1", 0), Answers)
        server.answers, server.asked = answers, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", server.asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def prefect_says(serve, monkeypatch, number=PREFECT, *, filter_status=404, status=200):
    pool = "/api/work_pools/codedance-process/workers/filter"
    answers = {"/api/admin/version": (status, json.dumps(number)), pool: (filter_status, "[]")}
    url, asked = serve(answers)
    monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
    return check_servers()[0], asked


def mlflow_says(serve, monkeypatch, number=MLFLOW, *, status=200):
    search = "/api/2.0/mlflow/experiments/search"
    url, asked = serve({"/version": (200, number), search: (status, "{}")})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    return check_servers()[1], asked


def test_without_servers_the_embedded_ones_are_named():
    prefect, mlflow = check_servers()
    assert prefect.is_well
    assert mlflow.is_well
    assert "PREFECT_API_URL" in prefect.state
    assert "mlflow.db" in mlflow.state


def test_servers_of_our_version_are_accepted(serve, monkeypatch):
    assert prefect_says(serve, monkeypatch)[0].is_well
    assert mlflow_says(serve, monkeypatch)[0].is_well


@pytest.mark.parametrize("number", ["3.4.1", "2.20.0", "4.0.0"])
def test_an_old_or_foreign_prefect_is_reported(serve, monkeypatch, number):
    finding, _ = prefect_says(serve, monkeypatch, number)
    assert not finding.is_well
    assert f"is Prefect {number}, ours {PREFECT}" in finding.state
    assert "pip install" in finding.remedy


def test_a_newer_prefect_of_the_same_major_version_is_accepted(serve, monkeypatch):
    assert prefect_says(serve, monkeypatch, "3.99.0")[0].is_well


def test_a_prefect_with_an_incompatible_fastapi_is_reported(serve, monkeypatch):
    finding, asked = prefect_says(serve, monkeypatch, filter_status=422)
    assert "fastapi<0.151" in finding.remedy
    assert not finding.is_well
    assert json.loads(asked[-1][2]) == {"limit": None}


@pytest.mark.parametrize("number", ["2.22.0", "3.9.0", "4.1.0"])
def test_an_old_or_foreign_mlflow_is_reported(serve, monkeypatch, number):
    finding, _ = mlflow_says(serve, monkeypatch, number)
    assert not finding.is_well
    assert f"is MLflow {number}" in finding.state


def test_the_finding_for_a_server_with_authentication_names_the_variables(serve, monkeypatch):
    finding, _ = mlflow_says(serve, monkeypatch, status=401)
    assert "denies access (401)" in finding.state
    assert "MLFLOW_TRACKING_USERNAME" in finding.remedy
    finding, _ = prefect_says(serve, monkeypatch, status=401)
    assert "PREFECT_API_AUTH_STRING" in finding.remedy


def test_credentials_are_sent_and_never_shown(serve, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_key")
    finding, asked = mlflow_says(serve, monkeypatch)
    assert asked[-1][1] == "Basic YW5uOnNlY3JldA=="
    assert "secret" not in f"{finding}"
    assert prefect_says(serve, monkeypatch)[1][0][1] == "Bearer pnu_key"


def test_a_page_that_is_not_mlflow_is_reported(serve, monkeypatch):
    finding, _ = mlflow_says(serve, monkeypatch, "<html>welcome</html>")
    assert not finding.is_well
    assert "of an unknown version" in finding.state


def test_an_unreachable_server_is_a_finding(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for finding, name in zip(
        check_servers(), ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"), strict=True
    ):
        assert "does not answer" in finding.state
        assert f"unset {name}" in finding.remedy


@pytest.mark.parametrize(
    ("uri", "is_well", "words"),
    [
        ("file:///runs", False, "file:///runs"),
        ("./mlruns", False, "./mlruns"),
        ("sqlite:////data/mlflow.db", True, "mlflow.db"),
        ("postgresql://ann:secret@host/runs", True, "host/runs"),
    ],
)
def test_databases_need_no_server_and_folders_are_rejected(monkeypatch, uri, is_well, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    finding = check_servers()[1]
    assert finding.is_well is is_well
    assert words in finding.state
    assert "secret" not in finding.state
