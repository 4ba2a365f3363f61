"""Checks of ``codedance flows serve`` before it starts anything, and its cleanup."""

from __future__ import annotations

import os
import socket
import sys
import time

import pytest
from codedance.pipelines.cli.services.dev_server import (
    DevServer,
    describe_schedules,
    serve_flows,
    stop_runs,
)
from codedance.pipelines.config.deployments import Deployment
from codedance.pipelines.config.schedules import Schedule
from codedance.pipelines.runs.processes import Service, ServiceError, running
from codedance.pipelines.serving import client_file


@pytest.fixture
def taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("ports", "option"), [((0, 1), "--prefect-port"), ((1, 0), "--mlflow-port")]
)
def test_the_error_for_a_used_port_names_the_option_for_another(home, tiny, taken, ports, option):
    os.environ.pop("PREFECT_API_URL", None)
    prefect, mlflow = ((taken, 1)[n] for n in ports)
    with pytest.raises(ServiceError, match=f"port {taken} is taken.*{option}"):
        serve_flows(DevServer(home, prefect, mlflow, 1), print)


def test_prefect_commands_in_the_folder_find_the_server_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with client_file.client_file("http://127.0.0.1:14200/api") as is_written:
        assert is_written
        assert 'url = "http://127.0.0.1:14200/api"' in client_file.FILE.read_text()
    assert not client_file.FILE.exists()


def test_a_users_own_prefect_file_is_not_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client_file.FILE.write_text('[api]\nurl = "https://mine"\n')
    with client_file.client_file("http://127.0.0.1:14200/api") as is_written:
        assert not is_written
    client_file.forget_dead_server()
    assert "mine" in client_file.FILE.read_text()


def test_the_file_of_a_killed_server_is_replaced(tmp_path, monkeypatch, taken):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    client_file.FILE.write_text(f'{client_file.HEAD}[api]\nurl = "http://127.0.0.1:{taken}/api"\n')
    client_file.forget_dead_server()
    assert client_file.FILE.exists()
    client_file.FILE.write_text(f'{client_file.HEAD}[api]\nurl = "http://127.0.0.1:9/api"\n')
    client_file.forget_dead_server()
    assert not client_file.FILE.exists()


EAGER = """
import subprocess, sys
while True:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    print(child.pid, flush=True)
    child.wait()
"""


def test_a_worker_accepts_no_other_run_while_its_runs_are_stopped(tmp_path):
    (tmp_path / "eager.py").write_text(EAGER)
    command = [sys.executable, str(tmp_path / "eager.py")]
    worker = Service("the worker", command, tmp_path / "worker.log")
    with running(worker):
        while not worker.log.exists() or not worker.log.read_text():
            time.sleep(0.02)
        begun = time.monotonic()
        stop_runs([worker], seconds=30)
        assert time.monotonic() - begun < 20
    assert not worker.is_running
    assert len(worker.log.read_text().split()) == 1


def test_schedules_are_described_including_paused_ones():
    entry = Deployment(
        name="a",
        entrypoint="b",
        schedules=[
            Schedule(interval=300),
            Schedule(cron="0 3 * * *", timezone="Europe/Berlin", active=False),
        ],
    )
    assert describe_schedules(entry) == "every 300 s, (0 3 * * * Europe/Berlin: paused)"
