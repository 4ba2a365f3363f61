"""Metrics of a stage by step in a file of its folder, so that reports need no MLflow."""

from __future__ import annotations

import contextlib
import json
import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

FILE_NAME = "metrics.jsonl"
TIMES_NAME = "times.jsonl"
"""Step durations: a file of their own, since a repeated run has equal metrics, other durations."""
Series = Sequence[tuple[int, float]]
"""Steps and values."""


class MetricsFile:
    """Appends metrics; on a full disk they wait for space, and training does not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: deque[tuple[int, Mapping[str, float]]] = deque()

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Append the metrics of a step after the waiting ones."""
        self._waiting.append((step, dict(values)))
        with contextlib.suppress(OSError):
            while self._waiting:
                append_metrics(self._folder, *self._waiting[0])
                self._waiting.popleft()


def append_metrics(folder: Path, step: int, values: Mapping[str, float]) -> None:
    """Append the metrics of a step, on a new line even if a kill cut the last one short.

    Raises:
        OSError: The disk is full.
    """
    clean = {name: value for name, value in values.items() if math.isfinite(value)}
    _append(folder / FILE_NAME, {"step": step, **clean})


def append_time(folder: Path, step: int, seconds: float) -> None:
    """Append the duration of a step; on a full disk it is left out."""
    with contextlib.suppress(OSError):
        _append(folder / TIMES_NAME, {"step": step, "seconds": round(seconds, 3)})


def read_seconds(folder: Path) -> list[float]:
    """Return the duration of each step in seconds, in order, without pauses between runs."""
    return [values["seconds"] for values in _read(folder / TIMES_NAME).values()]


def read_steps(folder: Path) -> dict[int, dict[str, float]]:
    """Return the metrics of each step, in order; the later record of a repeated step counts."""
    return _read(folder / FILE_NAME)


def _append(path: Path, values: Mapping[str, float]) -> None:
    with path.open("ab+") as file:
        if file.tell() and file.seek(-1, 2) >= 0 and file.read(1) != b"\n":
            file.write(b"\n")
        file.write((json.dumps(values) + "\n").encode())


def _read(path: Path) -> dict[int, dict[str, float]]:
    if not path.is_file():
        return {}
    steps: dict[int, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
            steps[int(values.pop("step"))] = values
        except (ValueError, KeyError):  # a line cut short by a full disk or a kill
            continue
    return dict(sorted(steps.items()))


def read_metrics(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values of each metric; the later record of a repeated step counts."""
    series: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for step, values in read_steps(folder).items():
        for name, value in values.items():
            series[name].append((step, value))
    return dict(series)
