"""Results of the environment benchmark: tables in 80 columns, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .env_trial import ASYNC, KINDS, OURS
from .envs import EnvsReport, Figure
from .tables import Table

_NOT_MEASURED = "–"
_AIMS: tuple[tuple[Figure, str], ...] = (
    ("steps_a_second", "steps per second"),
    ("first_step_seconds", "time to the first step"),
    ("memory_mb", "memory"),
)


def env_tables(report: EnvsReport) -> Iterator[Table]:
    """Yield one table per number of members, with the figures of each kind."""
    for count in report.counts:
        yield Table(
            f"{count} environment{'s' if count > 1 else ''}",
            ("", "steps/s", "first step, s", "MB", "processes", "left", "left MB"),
            tuple(_row(report, kind, count) for kind in KINDS),
        )


def env_lines(report: EnvsReport) -> Iterator[str]:
    """Yield the lines below the tables."""
    for count in report.counts:
        ratios = [(name, report.ratio(count, figure)) for figure, name in _AIMS]
        known = [f"{name} ×{_number(ratio)}" for name, ratio in ratios if ratio is not None]
        if known:
            yield f"{OURS} to {ASYNC} at {count}: {', '.join(known)}"
    yield "first step: from creation to the result of the first block; MB: with all its processes"
    yield "left: after close(); every kind produced the same trajectories"
    for name, why in report.missing.items():
        yield f"skipped {name}: {why}"
    machine = report.machine
    yield f"machine {machine.processor}, {machine.cores} core(s), {machine.memory_gb} GB"
    yield f"        {machine.system}, as {machine.user}"
    yield (
        f"        load {report.load_before:.2f} at the start, {report.load_after:.2f} at the "
        f"end; {report.rounds} rounds, seed {report.seed}"
    )


def env_json(report: EnvsReport) -> str:
    """Return all measurements, including the trial of each round."""
    data: dict[str, Any] = asdict(report)
    data["trials"] = [
        {"kind": kind, "count": count, "rounds": [asdict(one) for one in trials]}
        for (kind, count), trials in report.trials.items()
    ]
    return json.dumps(data, indent=1)


def _row(report: EnvsReport, kind: str, count: int) -> tuple[str, ...]:
    trials = report.trials.get((kind, count), [])
    if not trials:
        return (kind, *[_NOT_MEASURED] * 6)
    figures: tuple[Figure, ...] = ("steps_a_second", "first_step_seconds", "memory_mb", "left_mb")
    speed, first, memory, left = (report.median(kind, count, figure) for figure in figures)
    processes = max(trial.processes for trial in trials)
    remaining = max(trial.left_processes for trial in trials)
    shown = (_number(speed), _number(first), _number(memory), f"{processes:,}", f"{remaining:,}")
    return (kind, *shown, _number(left))


def _number(value: float | None) -> str:
    if value is None:
        return _NOT_MEASURED
    digits = 3 if abs(value) < 1 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"
