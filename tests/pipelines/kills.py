"""Commands and ``flows serve`` as users start them, in separate folders, to be killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from codedance.pipelines.config.home import Home
from codedance.pipelines.runs.processes import free_port
from codedance.pipelines.tracking.metrics_file import FILE_NAME

CODEDANCE = "from codedance.pipelines.cli import main; main()"
STEPS = 24
LIMIT_SECONDS = 500
"""Time limit of a test that hangs, much longer than any expected wait."""
FLOWS = """
presets:
  smoke:
    suite: nano
    max_new_tokens: 12
    curate: {candidates: 48, known: 40, weak_samples: 2, strong_samples: 1}
    sft: {steps: STEPS, batch_size: 4, warmup_steps: 1, save_every: 2}
    grpo: {steps: 3, tasks_per_step: 2, num_generations: 2, save_every: 1}
    evaluate: {limit: 70, batch_size: 32, traces: 1}
deployments:
  - name: tiny
    entrypoint: codedance.pipelines.flows.sft
    parameters: {preset: smoke, seed: 0}
    concurrency_limit: 1
    tags: [codedance]
    work_pool: &pool
      name: codedance-process
      job_variables: {working_dir: "{{ $PWD }}"}
  - name: other
    entrypoint: codedance.pipelines.flows.sft
    parameters: {preset: smoke, seed: 1}
    work_pool: *pool
"""


@dataclass
class Folder:
    """A user's folder with flows.yaml, CODEDANCE_DIR, and the locks of the host."""

    root: Path
    steps: int = STEPS

    def __post_init__(self):
        self.root.mkdir(parents=True, exist_ok=True)
        text = FLOWS.replace("STEPS", str(self.steps))
        (self.root / "flows.yaml").write_text(text, encoding="utf-8")

    @property
    def home(self):
        return Home(self.root / ".codedance")

    @property
    def environment(self):
        """Return a default environment, without pytest's, Prefect's and MLflow's variables."""
        theirs = ("PREFECT_", "MLFLOW_", "CODEDANCE_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        return kept | {"CODEDANCE_LOCKS": str(self.root / "locks"), "OMP_NUM_THREADS": "1"}

    def start(self, *arguments, log):
        """Start a command in its own process group, with its output in a file."""
        with (self.root / log).open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-c", CODEDANCE, *arguments],
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *arguments, log):
        """Run a command, which has to succeed; return its output."""
        process = self.start(*arguments, log=log)
        assert process.wait(LIMIT_SECONDS) == 0, self.said(log)
        return self.said(log)

    def said(self, log):
        path = self.root / log
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def steps_done(self, run=0):
        """Return the steps in the metrics of a training, oldest first."""
        found = self.trainings()
        path = found[run] / FILE_NAME if len(found) > run else None
        lines = path.read_text().splitlines() if path and path.exists() else []
        return [json.loads(line)["step"] for line in lines if line.endswith("}")]

    def trainings(self):
        """Return the folders of the cold starts, the oldest first."""
        return sorted(self.home.stages.glob("sft-*"), key=lambda path: path.stat().st_ctime)

    def wait_for_step(self, process, step, *, run=0, log="serve.log"):
        """Wait until a training has completed a step."""
        wait_until(
            lambda: len(set(self.steps_done(run))) >= step or process.poll() is not None,
            lambda: self.said(log),
        )
        assert process.poll() is None, self.said(log)

    def family(self, process):
        """Return the living descendants of a command's process."""
        children = psutil.Process(process.pid).children(recursive=True)
        return {*children, *(one for one in psutil.process_iter() if _works_in(one, self.root))}

    def statuses(self, table="lineage", column="status", database="store.db"):
        """Return one column of a database, read from outside."""
        with closing(sqlite3.connect(self.home.root / database)) as connection:
            return [value for (value,) in connection.execute(f"SELECT {column} FROM {table}")]


def _works_in(process, root):
    try:
        mine = process.environ().get("CODEDANCE_LOCKS") == str(root / "locks")
        return mine and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False


def is_gone(process):
    """Return whether a process has ended, including zombies."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(claim, explain=lambda: "the condition never became true", seconds=LIMIT_SECONDS):
    """Wait until a condition is true, also on a slow machine."""
    end = time.monotonic() + seconds
    while not (found := claim()):
        assert time.monotonic() < end, explain()
        time.sleep(0.02)
    return found


@contextmanager
def killed_at_end(process):
    """Kill a process and its descendants at the end of a test in any case."""
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def served(folder, *, port=None):
    """Serve the folder's flows as from a shell, with Ctrl-C at the end; yields the process."""
    arguments = ["flows", "serve", "--no-mlflow", "--prefect-port", str(port or free_port())]
    process = folder.start(*arguments, log="serve.log")
    try:
        wait_until(
            lambda: "stops everything" in folder.said("serve.log") or process.poll() is not None,
            lambda: folder.said("serve.log"),
        )
        assert process.poll() is None, folder.said("serve.log")
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(LIMIT_SECONDS)


def prefect(folder, *arguments):
    """Run Prefect's own command in the folder; return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=folder.root,
        env=folder.environment | {"PREFECT_HOME": str(folder.home.prefect)},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def worker_of(process):
    """Return the living worker of a ``flows serve``."""
    children = psutil.Process(process.pid).children()
    return next((one for one in children if "worker" in command_line(one)), None)


def flow_run_of(folder):
    """Return the process of the flow run in progress in a folder."""
    family = (one for one in psutil.process_iter() if _works_in(one, folder.root))
    return next((one for one in family if "prefect.engine" in command_line(one)), None)


def command_line(process):
    """Return the command line of a process; empty if it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
