"""``codedance flows serve`` as a user has it: a server, a worker, runs that are started, cancelled,
resumed, killed, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from .runs import TINY

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1500)]
PACKAGED = Path(__file__).parents[2] / "flows.yaml"
COMMAND = [sys.executable, "-c", "from codedance.pipelines.cli import main; main()"]
PATIENCE = 300


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(claim, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (found := claim()):
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.5)
    return found


class Served:
    """A folder that is served, as its user sees it: commands and pages."""

    def __init__(self, folder, process, port):
        self.folder = folder
        self.process = process
        self.url = f"http://127.0.0.1:{port}/api"

    @property
    def said(self):
        return (self.folder / "said.txt").read_text()

    def prefect(self, *arguments):
        """Give a command in the served folder, which tells nothing of the server's address."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=self.folder,
            env={n: v for n, v in os.environ.items() if n != "PREFECT_API_URL"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, deployment, **parameters):
        """Start a deployment; give the flow run's id."""
        given = [word for n, v in parameters.items() for word in ("--param", f"{n}={v}")]
        out = self.prefect("deployment", "run", deployment, *given)
        return re.search(r"UUID: (\S+)", out)[1]

    def ask(self, question):
        """Ask the server; ``question`` takes a client."""
        from prefect.client.orchestration import PrefectClient

        async def go():
            async with PrefectClient(self.url) as client:
                return await question(client)

        return asyncio.run(go())

    def state(self, run):
        return self.ask(lambda client: client.read_flow_run(run)).state

    def wait_for_state(self, run, *names):
        return wait_until(lambda: (s := self.state(run)) and s.name in names and s)

    def lines(self, run):
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
        found = self.ask(lambda client: client.read_logs(wanted))
        return [line.message for line in found]

    def wait_for_line(self, run, beginning):
        wait_until(lambda: any(line.startswith(beginning) for line in self.lines(run)))

    def processes(self, word):
        """Give the processes below the command whose command line has a word."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in family if word in " ".join(one.cmdline())]


@pytest.fixture
def served(tmp_path):
    content = {**yaml.safe_load(PACKAGED.read_text()), **yaml.safe_load(TINY)}
    content["presets"]["smoke"]["grpo"]["steps"] = 40  # long enough to be cancelled and killed
    content["deployments"][0]["schedules"][0]["interval"] = 60
    (tmp_path / "flows.yaml").write_text(yaml.safe_dump(content))
    port = free_port()
    arguments = ["flows", "serve", "--prefect-port", str(port), "--no-mlflow"]
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, stdout=said, stderr=said)
    served = Served(tmp_path, process, port)
    try:
        wait_until(lambda: "Ctrl-C ends all" in served.said or process.poll() is not None)
        assert process.poll() is None, served.said
        yield served
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=120)


def test_a_served_folder_from_its_first_run_to_its_last(served):
    first = served.start("pipeline/quick-demo")
    assert served.wait_for_state(first, "Completed", "Failed", "Crashed").name == "Completed"
    assert any(line.startswith("grpo: finished in") for line in served.lines(first))
    fired = served.ask(lambda client: client.read_flow_runs())
    assert any(run.auto_scheduled for run in fired)

    # One stage alone, its inputs by lineage; cancelled in the middle; gone on with.
    alone = served.start("grpo/newest", refresh="true")
    served.wait_for_line(alone, "grpo  ")
    served.prefect("flow-run", "cancel", alone)
    served.wait_for_state(alone, "Cancelled")
    wait_until(lambda: not served.processes("sandbox/worker"))
    served.prefect("flow-run", "retry", alone)
    served.wait_for_line(alone, "grpo: going on with grpo-")

    # Kill -9 of the worker and of the run: another worker is there, the run does not stay Running.
    (worker,) = served.processes("worker start")
    (run,) = served.processes("prefect.engine") or served.processes("workspace")
    worker.kill()
    run.kill()
    wait_until(lambda: "died (killed by SIGKILL) and is started again" in served.said)
    assert served.wait_for_state(alone, "Crashed", "Completed", "Failed").name == "Crashed"
    again = served.start("grpo/newest")
    assert served.wait_for_state(again, "Completed", "Failed", "Crashed").name == "Completed"

    family = psutil.Process(served.process.pid).children(recursive=True)
    served.process.send_signal(signal.SIGINT)
    served.process.wait(timeout=120)
    assert not psutil.wait_procs(family, timeout=20)[1]
    assert not (served.folder / "prefect.toml").exists()
