"""Sends events to MLflow by way of an outbox on disk, so that training never waits for it.

Every event is one line appended to a file under ``CODEDANCE_DIR/outbox``. A thread forwards the
lines; while MLflow is unreachable they stay, and the next run (or ``codedance mlflow send``) sends
them. `Tracker` is the writing side, `mlflow.sender.Sender` the sending one.
"""

from __future__ import annotations

import fcntl
import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..store.lineage import StageRun
from .line_file import LineFile
from .outbox import Address

Terms = Mapping[str, float | None]


class Tracker:
    """Appends events to the outbox file of this process.

    Args:
        folder: Folder of the outbox; None records nothing (tests, read-only commands).
        address: MLflow that the events are for; None leaves it to whoever sends them.
    """

    def __init__(self, folder: Path | None, *, address: Address | None = None) -> None:
        self._lock = threading.Lock()
        self.path: Path | None = None
        self._file: LineFile | None = None
        self._first = None if address is None else address.as_event()
        self.lost = 0
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{time.time_ns()}-{uuid4().hex[:8]}.jsonl"
        self._file = LineFile(self.path)
        fcntl.flock(self._file.fileno(), fcntl.LOCK_EX)

    def begin(self, run: StageRun, *, tags: Mapping[str, str], description: str = "") -> None:
        """Open (or reopen) the MLflow run of a stage run, below that of its pipeline run.

        Args:
            run: Stage run or pipeline run.
            tags: Tags, set again each time.
            description: Description at the top of its page, Markdown; empty leaves it unchanged.
        """
        self._append(
            "begin",
            run.id,
            parent=run.parent,
            stage=run.stage,
            tags={**tags, "mlflow.note.content": description},
            parameters=_flat(run.parameters),
            time=_now(),
        )

    def metrics(self, run_id: str, step: int, values: Mapping[str, float | None]) -> None:
        """Log the values of one step; None and NaN are left out."""
        clean = {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}
        if clean:
            self._append("metrics", run_id, step=step, values=clean, time=_now())

    def dataset(
        self, run_id: str, name: str, *, digest: str, profile: Mapping[str, Any], use: str
    ) -> None:
        """Log the data that a run reads: name, digest, a profile, and its use."""
        values = {"name": name, "digest": digest, "profile": dict(profile), "use": use}
        self._append("dataset", run_id, **values)

    def tag(self, run_id: str, name: str, value: str) -> None:
        """Set a tag of a run, replacing an older value."""
        self._append("tag", run_id, name=name, value=value)

    def describe(self, run_id: str, description: str) -> None:
        """Replace the description at the top of a run's page, Markdown."""
        self._append("describe", run_id, description=description)

    def artifact(self, run_id: str, path: Path, *, folder: str = "") -> None:
        """Upload a copy of a file, or of every file in a folder, one event per file."""
        paths = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for one in paths:
            below = one.parent.relative_to(path).as_posix() if path.is_dir() else "."
            place = "/".join(part for part in (folder, below) if part not in ("", "."))
            self._append("artifact", run_id, path=str(one), folder=place)

    def model(self, run_id: str, path: Path, *, name: str, suite: str) -> None:
        """Log a checkpoint folder as a model of the run, and register it for a suite."""
        self._append("model", run_id, path=str(path), name=name, suite=suite, time=_now())

    def judged(self, run_id: str, results: Path, *, makers: Mapping[str, str], suite: str) -> None:
        """Log the results of checkpoints on held-out tasks, which decide the champion.

        Args:
            run_id: Evaluation run.
            results: File written by `model_comparison.write_results`.
            makers: Stage run that produced the checkpoint of each policy, in order of evaluation.
            suite: Suite of the held-out tasks.
        """
        makers = dict(makers)
        self._append("judged", run_id, results=str(results), makers=makers, suite=suite)

    def traces(
        self,
        run_id: str,
        trajectories: Sequence[int],
        *,
        name: str,
        terms: Mapping[int, Terms] | None = None,
    ) -> None:
        """Log stored trajectories as traces.

        Args:
            run_id: Stage run.
            trajectories: Their ids in the store; siblings of a group together.
            name: Phase or step that they belong to.
            terms: Reward terms of the trajectories that have none in the store.
        """
        if trajectories:
            scored = {str(number): dict(values) for number, values in (terms or {}).items()}
            self._append("traces", run_id, trajectories=list(trajectories), name=name, terms=scored)

    def end(self, run: StageRun, status: str) -> None:
        """Close a run as ``finished``, ``interrupted`` or ``failed``."""
        self._append("end", run.id, status=status, time=_now())

    def flush(self) -> None:
        """Write the lines that wait for disk space."""
        with self._lock:
            if self._file is not None:
                self._file.flush()

    def close(self) -> None:
        """Close the outbox file; an empty one is removed."""
        with self._lock:
            if self._file is None or self.path is None:
                return
            self._file.close()
            self.lost = self._file.lost
            self._file = None
            if self.path.exists() and self.path.stat().st_size == 0:
                self.path.unlink()

    def _append(self, kind: str, run_id: str, **content: Any) -> None:  # noqa: ANN401 - JSON
        """Write a line; on a full disk it waits, and training does not."""
        with self._lock:
            if self._file is None:
                return
            if self._first is not None:
                self._file.append(_line(self._first))
                self._first = None
            self._file.append(_line({"kind": kind, "run": run_id, **content}))


def _line(event: Mapping[str, Any]) -> bytes:
    return (json.dumps(event) + "\n").encode()


def _now() -> int:
    """Return the time in milliseconds, as MLflow expects it."""
    return time.time_ns() // 10**6


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested parameters: ``{"sft": {"steps": 3}}`` → ``{"sft.steps": "3"}``."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
