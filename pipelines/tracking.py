"""Tells MLflow what happens, by way of a spool on disk, so that training never waits for it.

Every event is one line appended to a file under ``CODEDANCE_DIR/spool``. A thread sends the lines
on; where MLflow is away they stay, and the next run sends them. `Tracker` is the writing side,
`mlflow_sender.Sender` the sending one.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from .store import StageRun

Event = dict[str, Any]


class Tracker:
    """Appends events to this process's spool file.

    Args:
        folder: The spool's folder; None keeps nothing (tests, ``--no-mlflow``).
    """

    def __init__(self, folder: Path | None) -> None:
        self._lock = threading.Lock()
        self.path: Path | None = None
        self._file = None
        self.is_full = False
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / f"{time.time_ns()}-{uuid4().hex[:8]}.jsonl"
            self._file = self.path.open("a", encoding="utf-8")
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def begin(self, run: StageRun, *, tags: Mapping[str, str], description: str = "") -> None:
        """Open (or reopen) the MLflow run of a stage run, below that of its parent."""
        self._append(
            "begin",
            run.id,
            parent=run.parent,
            stage=run.stage,
            tags={**tags, "mlflow.note.content": description},
            parameters=_flat(run.parameters),
        )

    def metrics(self, run_id: str, step: int, values: Mapping[str, float | None]) -> None:
        """Log the values of one step; None and NaN are left out."""
        clean = {k: float(v) for k, v in values.items() if v is not None and math.isfinite(v)}
        if clean:
            self._append("metrics", run_id, step=step, values=clean, time=time.time_ns() // 10**6)

    def dataset(self, run_id: str, name: str, *, digest: str, profile: Mapping[str, Any]) -> None:
        """Say which data a run reads: its name, digest, and a few figures."""
        self._append("dataset", run_id, name=name, digest=digest, profile=dict(profile))

    def tag(self, run_id: str, name: str, value: str) -> None:
        """Set a tag of a run, an older value replaced."""
        self._append("tag", run_id, name=name, value=value)

    def artifact(self, run_id: str, path: Path, *, folder: str = "") -> None:
        """Give a run a copy of a file or of a folder's files."""
        self._append("artifact", run_id, path=str(path), folder=folder)

    def model(self, run_id: str, path: Path, *, name: str) -> None:
        """Log a checkpoint folder as a model of the run."""
        self._append("model", run_id, path=str(path), name=name)

    def traces(self, run_id: str, trajectories: Sequence[int], *, name: str) -> None:
        """Show stored trajectories as traces."""
        if trajectories:
            self._append("traces", run_id, trajectories=list(trajectories), name=name)

    def end(self, run: StageRun, status: str) -> None:
        """Close a run as ``finished``, ``interrupted`` or ``failed``."""
        self._append("end", run.id, status=status)

    def close(self) -> None:
        """Let go of the spool file; an empty one is removed."""
        with self._lock:
            if self._file is None or self.path is None:
                return
            self._file.close()
            self._file = None
            if self.path.exists() and self.path.stat().st_size == 0:
                self.path.unlink()

    def _append(self, kind: str, run_id: str, **content: Any) -> None:  # noqa: ANN401 - JSON
        """Write a line; a full disk costs figures, never the training."""
        with self._lock:
            if self._file is None:
                return
            line = json.dumps({"kind": kind, "run": run_id, **content}) + "\n"
            try:
                self._file.write(line)
                self._file.flush()
            except OSError:
                self.is_full = True


def orphans(folder: Path) -> list[Path]:
    """Give the spool files that no living process writes to, oldest first."""
    found: list[Path] = []
    for path in sorted(folder.glob("*.jsonl")):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            found.append(path)
    return found


class SpoolReader:
    """Reads a spool file from where the last sending ended; remembers it beside the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = path.with_suffix(".sent")
        self.offset = int(self._mark.read_text()) if self._mark.exists() else 0

    def read(self, limit: int = 2000) -> list[tuple[Event, int]]:
        """Give up to ``limit`` unsent events, each with the offset behind it."""
        events: list[tuple[Event, int]] = []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n") or len(events) >= limit:
                    break
                end = (events[-1][1] if events else self.offset) + len(line)
                events.append((_parse(line), end))
        return events

    def mark(self, offset: int) -> None:
        """Remember that everything before ``offset`` was sent."""
        self.offset = offset
        temporary = self._mark.with_suffix(".part")
        temporary.write_text(str(offset))
        os.replace(temporary, self._mark)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to send."""
        return not self.path.exists() or self.offset >= self.path.stat().st_size

    def remove(self) -> None:
        """Delete the file and its mark."""
        self.path.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)


def _parse(line: bytes) -> Event:
    """Read a line; one that a full disk cut short says nothing."""
    try:
        return json.loads(line)
    except ValueError:
        return {"kind": "broken", "run": ""}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested parameters: ``{"sft": {"steps": 3}}`` → ``{"sft.steps": "3"}``."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
