"""Results of the store benchmark: tables in 80 columns, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .store import FIGURES, READ, SAMPLES, TASKS, WRITE, StoreReport
from .tables import Table


def store_tables(report: StoreReport) -> Iterator[Table]:
    """Yield speeds, then sizes."""
    yield Table(
        f"a step of {TASKS * SAMPLES} trajectories ({report.step_rows} rows), milliseconds",
        ("", "write", "rows/s", "× SQLite", "read", "figures of all"),
        tuple(_speeds(report, name) for name in report.result.names),
    )
    yield Table(
        f"1,000 trajectories, and a check of {report.trajectories:,}",
        ("", "database MB", "images MB", "images", "verify s"),
        tuple(
            (
                name,
                f"{sizes.database_bytes / 1e6:.1f}",
                f"{sizes.picture_bytes / 1e6:.1f}",
                f"{sizes.pictures:,.0f}",
                f"{sizes.verify_seconds:.2f}",
            )
            for name, sizes in report.sizes.items()
        ),
    )


def store_lines(report: StoreReport) -> Iterator[str]:
    """Yield the lines below the tables."""
    yield (
        "a trajectory: 2 calls with an image each, 3 turns, 320 tokens; images are files "
        "beside the database, written once; a write includes hashing and the images"
    )
    yield (
        "PostgreSQL and the rollback journal wait for the disk at every commit, SQLite's log "
        "does not: after a power cut it lacks the last commits, but is consistent"
    )
    for name, how in report.missing.items():
        yield f"skipped {name}: {how}"
    machine = report.machine
    yield f"machine {machine.processor}, {machine.cores} core(s), {machine.memory_gb} GB"
    yield f"        {machine.system}"
    yield (
        f"        load {report.load_before:.2f} at the start, {report.load_after:.2f} at the end; "
        f"{report.rounds} rounds, seed {report.seed}"
    )


def as_json(report: StoreReport) -> str:
    """Return all measurements."""
    data: dict[str, Any] = asdict(report)
    data["result"] = {
        name: {row: list(report.result.seconds[name, row]) for row in (WRITE, READ, FIGURES)}
        for name in report.result.names
    }
    data["rows_a_second"] = {name: report.rows_a_second(name) for name in report.result.names}
    return json.dumps(data, indent=1)


def _speeds(report: StoreReport, name: str) -> tuple[str, ...]:
    result = report.result
    ratio = result.ratio(name, WRITE, result.names[0])
    return (
        name,
        _milliseconds(result.median(name, WRITE)),
        f"{report.rows_a_second(name):,.0f}",
        "" if ratio is None else f"{ratio:.2f}",
        _milliseconds(result.median(name, READ)),
        _milliseconds(result.median(name, FIGURES)),
    )


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1e3 * seconds:.1f}"
