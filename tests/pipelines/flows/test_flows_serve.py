"""``codedance flows serve`` from start to end, as processes: server, worker, flow runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest
from codedance.pipelines.config.home import Home
from codedance.pipelines.runs.processes import free_port
from codedance.pipelines.store.store import open_store

from ..tiny_runs import TINY, story

pytestmark = pytest.mark.slow
DEPLOYMENTS = """
deployments:
  - name: demo
    entrypoint: codedance.pipelines.flows.pipeline
    parameters: {preset: smoke, seed: 0}
    work_pool: &pool
      name: codedance-process
      job_variables: {working_dir: "{{ $PWD }}"}
  - name: newest
    entrypoint: codedance.pipelines.flows.evaluate
    work_pool: *pool
"""
BEGIN_SECONDS = 240
CODEDANCE = "from codedance.pipelines.cli import main; main()"


@contextmanager
def served(folder):
    """Serve the folder's flows as from a shell, with Ctrl-C at the end; yields the process."""
    command = ["flows", "serve", "--no-mlflow", "--prefect-port", str(free_port())]
    log = folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", CODEDANCE, *command],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + BEGIN_SECONDS
        while "Ctrl-C stops everything." not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=120)


def deployment_run(folder, *arguments):
    """Run a deployment by Prefect's own command and wait for it; return its output."""
    command = [sys.executable, "-m", "prefect", "deployment", "run", *arguments, "--watch"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.sub(r"\s+", " ", done.stdout)


def test_deployments_run_stages_can_be_rerun_and_ctrl_c_leaves_nothing(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "flows.yaml").write_text(TINY + DEPLOYMENTS, encoding="utf-8")
    monkeypatch.setenv("CODEDANCE_DIR", str(tmp_path / ".codedance"))
    with served(tmp_path) as process:
        assert (tmp_path / "prefect.toml").is_file()
        assert "'Completed'" in deployment_run(tmp_path, "pipeline/demo")
        assert "'Completed'" in deployment_run(
            tmp_path, "evaluate/newest", "--param", "refresh=true"
        )
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
    assert process.returncode == 0, (tmp_path / "serve.log").read_text()
    assert not (tmp_path / "prefect.toml").exists()
    assert not psutil.wait_procs(family, timeout=20)[1]

    with open_store(Home(tmp_path / ".codedance")) as store:
        runs = store.lineage.find()
        assert {run.status for run in runs} == {"finished"}
        evaluations = [run for run in runs if run.stage == "evaluate"]
        stories = [story(store, run.id) for run in evaluations]
    assert len(runs) == 6
    assert stories[0] == stories[1]
