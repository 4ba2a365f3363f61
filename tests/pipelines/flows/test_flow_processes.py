"""A flow run's process outlives the worker that reads its output, and is found without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest
from codedance.pipelines.config.home import Home
from codedance.pipelines.serving.flow_processes import LOG, flow_run_processes, keep_output, orphans

from ..kills import wait_until

RUN = """
import os, sys, time
from pathlib import Path
from codedance.pipelines.serving.flow_processes import keep_output
from codedance.pipelines.config.home import Home
folder = Path(sys.argv[1])
keep_output(Home(folder))
print("begun", flush=True)
while os.getppid() == int(sys.argv[2]):
    time.sleep(0.02)
for stream in (sys.stdout, sys.stderr):
    print("the worker is gone", file=stream, flush=True)
(folder / "finished").touch()
"""
WORKER = """
import os, subprocess, sys
command = [sys.executable, sys.argv[1] + "/run.py", sys.argv[1], str(os.getpid())]
run = subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
)
for line in run.stdout if "stdout" in sys.argv else run.stderr:
    print(line.decode(), end="", flush=True)
"""


def test_a_run_continues_when_the_worker_that_reads_its_output_is_killed(tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    log = tmp_path / "logs" / LOG
    assert worker.stdout.readline() == f"the output of this flow run is in {log}\n"
    wait_until(lambda: log.exists() and "begun" in log.read_text())
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    wait_until((tmp_path / "finished").exists)
    assert log.read_text().splitlines() == ["begun", *["the worker is gone"] * 2]


@pytest.mark.parametrize("place", ["a file", "nowhere", "a pipe that another reads"])
def test_output_not_read_by_a_parent_is_not_redirected(tmp_path, place):
    code = (
        "import sys; from pathlib import Path; from codedance.pipelines.config.home import Home; "
    )
    code += "from codedance.pipelines.serving.flow_processes import keep_output; "
    code += "keep_output(Home(Path(sys.argv[1]))); print('said')"
    command = [sys.executable, "-c", code, str(tmp_path)]
    if place == "a file":
        with (tmp_path / "out").open("wb") as out:
            subprocess.run(command, stdout=out, check=True)
        assert (tmp_path / "out").read_text() == "said\n"
    elif place == "nowhere":
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    else:  # the shell in between does not have the other end of the pipe
        shell = ["/bin/sh", "-c", '"$@"; :', "sh", *command]
        done = subprocess.run(shell, capture_output=True, text=True, check=True)
        assert done.stdout == "said\n"
    assert not (tmp_path / "logs").exists()


def test_output_that_is_not_a_pipe_is_not_redirected(tmp_path, capfd):
    keep_output(Home(tmp_path))
    assert not (tmp_path / "logs").exists()


@pytest.fixture
def flow_run():
    """A process started like by Prefect's worker, whose worker has ended."""
    code = "import sys; sys.stdin.read()"
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": "a-run", "PREFECT_API_URL": "http://here"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "prefect.engine"],
        stdin=subprocess.PIPE,
        env=environment,
    )
    yield process
    process.kill()
    process.communicate()


def test_runs_are_found_by_their_id_and_orphans_by_their_server(flow_run, monkeypatch):
    wait_until(lambda: "a-run" in flow_run_processes())  # after its exec
    assert flow_run_processes()["a-run"] == psutil.Process(flow_run.pid)
    monkeypatch.setenv("PREFECT_API_URL", "http://here")
    assert [one.pid for one in orphans()] == [flow_run.pid]
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere")
    assert orphans() == []
