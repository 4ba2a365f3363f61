"""Metrics of a stage by step in files of its folder: the truth that reports and MLflow show."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from .lines import LineWriter, append_line, read_lines

FILE_NAME = "metrics.jsonl"
TIMES_NAME = "times.jsonl"
"""Step durations: a file of their own, since a repeated run has equal metrics, other durations."""
Series = Sequence[tuple[int, float]]
"""Steps and values."""


def append_metrics(
    writer: LineWriter, folder: Path, step: int, values: Mapping[str, float]
) -> None:
    """Append the metrics of a step; on a full disk they wait for space."""
    clean = {name: value for name, value in values.items() if math.isfinite(value)}
    writer.append(folder / FILE_NAME, {"step": step, **clean})


def append_time(folder: Path, step: int, seconds: float) -> None:
    """Append the duration of a step; on a full disk it is left out."""
    with contextlib.suppress(OSError):
        append_line(folder / TIMES_NAME, {"step": step, "seconds": round(seconds, 3)})


def read_seconds(folder: Path) -> list[float]:
    """Return the duration of each step in seconds, in order, without pauses between runs."""
    return [values["seconds"] for values in read_steps(folder, TIMES_NAME).values()]


def read_steps(folder: Path, name: str = FILE_NAME) -> dict[int, dict[str, float]]:
    """Return the metrics of each step, in order; the later record of a repeated step counts."""
    steps: dict[int, dict[str, float]] = {}
    for line in read_lines(folder / name):
        with contextlib.suppress(KeyError, ValueError):
            steps[int(line.pop("step"))] = line
    return dict(sorted(steps.items()))


def read_metrics(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values of each metric; the later record of a repeated step counts."""
    series: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for step, values in read_steps(folder).items():
        for name, value in values.items():
            series[name].append((step, value))
    return dict(series)
