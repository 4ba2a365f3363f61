"""A command with an accident, and checks of the state afterwards."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field

from codedance.pipelines.store.lineage import PIPELINE
from codedance.pipelines.store.maintenance.verify import verify
from codedance.pipelines.store.store import open_store

from ..kills import (
    LIMIT_SECONDS,
    Folder,
    killed_at_end,
    wait_until,
)

STEPS = {"sft": 8, "grpo": 3}
STAGES = ("curate", "sft", "grpo", "evaluate")
FAILED, INTERRUPTED, KILLED = 3, 130, -signal.SIGKILL


@dataclass
class Trial:
    """A user's folder for an accident.

    Attributes:
        folder: Folder with a flows.yaml whose pipeline takes seconds.
        command: Arguments of the command.
        stage: Running stage at the time of the accident.
        notes: Seconds until it resumed, and observations.
    """

    folder: Folder
    command: tuple[str, ...]
    stage: str
    notes: dict[str, float | str] = field(default_factory=dict)
    _begun: int = 0

    def start(self):
        """Start the command."""
        self._begun += 1
        return self.folder.start(*self.command, log=self.log)

    @property
    def log(self):
        return f"command-{self._begun}.log"

    @property
    def said(self):
        return self.folder.said(self.log)

    def progress(self):
        """Return the number of steps, or of episodes, that the stage has recorded."""
        if self.stage in STEPS:
            return sum(
                len((path / "metrics.jsonl").read_text().splitlines())
                for path in self.folder.home.stages.glob(f"{self.stage}-*")
                if (path / "metrics.jsonl").exists()
            )
        path = self.folder.home.root / "store.db"
        query = (
            "SELECT count(*) FROM trajectories JOIN lineage ON lineage.id = stage_run"
            f" WHERE lineage.stage = '{self.stage}'"
        )
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                return connection.execute(query).fetchone()[0]
        except sqlite3.Error:  # does not exist yet
            return 0

    def reach(self, process):
        """Wait until the stage has started its work."""
        wait_until(lambda: self.progress() >= 1 or process.poll() is not None, lambda: self.said)
        assert process.poll() is None, self.said

    def end(self, process, *codes):
        """Wait until the command exits with one of the codes."""
        assert process.wait(LIMIT_SECONDS) in codes, (process.returncode, self.said)

    def go_on(self):
        """Rerun the same command; record the time until the stage recorded something new."""
        done, begun = self.progress(), time.monotonic()
        process = self.start()
        with killed_at_end(process):
            wait_until(
                lambda: self.progress() > done or process.poll() is not None, lambda: self.said
            )
            self.notes["seconds"] = time.monotonic() - begun
            self.end(process, 0)


class OwnFolder(Folder):
    """A folder whose commands have additional variables."""

    extra: dict[str, str]

    @property
    def environment(self):
        return super().environment | self.extra


def prefect_states(trial):
    return trial.folder.statuses("flow_run", "state_name", "prefect/prefect.db")


def check_whole(trial: Trial) -> None:
    """Check that nothing is lost, done twice, left running, or blocking other runs."""
    before = dict(os.environ)
    os.environ.update(trial.folder.extra)
    try:
        with open_store(trial.folder.home) as store:
            runs = store.lineage.find()
            check_runs(trial, store, runs)
            assert verify(store).is_whole
    finally:
        os.environ.clear()
        os.environ.update(before)
    prefect_db = trial.folder.home.prefect / "prefect.db"
    if prefect_db.exists():
        assert not {"Running", "Pending"} & set(prefect_states(trial)), prefect_states(trial)
    if (trial.folder.home.root / "mlflow.db").exists():
        shown = trial.folder.statuses("runs", "status", "mlflow.db")
        assert "RUNNING" not in shown, shown
        assert len(shown) == len(runs)
    for lock in (trial.folder.root / "locks").glob("*.lock"):
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # else the next training would wait


def check_runs(trial, store, runs):
    stages = [run for run in runs if run.stage != PIPELINE]
    waited = trial.command == ("sft",)
    for stage in {run.stage for run in stages}:
        found = [run for run in stages if run.stage == stage and (not waited or run.seed == 0)]
        assert len(found) == 1, f"{stage} was started {len(found)} times"
        assert found[0].is_complete, found[0]
        episodes = [(e.phase, e.step, e.task_key, e.sample) for e in store.episodes(found[0].id)]
        assert len(episodes) == len(set(episodes))
    if trial.command[0] == "run":
        assert {run.stage for run in stages} == set(STAGES)
        assert all(run.is_finished for run in runs), [(run.id, run.status) for run in runs]
    for stage, steps in STEPS.items():
        for path in trial.folder.home.stages.glob(f"{stage}-*"):
            lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            done = sorted({json.loads(line)["step"] for line in lines})
            wanted = trial.folder.steps if stage == "sft" else steps
            assert done == list(range(1, wanted + 1)), done
    assert "running" not in {run.status for run in runs}, [(run.id, run.status) for run in runs]
