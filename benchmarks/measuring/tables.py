"""Results of the sandbox benchmark: tables in 80 columns, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .rounds import Result, Row
from .sandbox import BARE, DOCKER, FULL, NO_ISOLATION, SandboxReport

_NOT_MEASURED = "–"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header, and rows of cells; the first column is text, the others figures."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(report: SandboxReport) -> Iterator[Table]:
    """Yield the tables of the report."""
    yield _timed("milliseconds per turn, × the baseline", report.turns)
    yield _timed("milliseconds per episode, one at a time, × bare exec", report.episodes)
    yield Table(
        f"episodes per second, {report.machine.cores} at once",
        ("", "light", "heavy"),
        tuple(
            (name, f"{rates['light']:.0f}", f"{rates['heavy']:.1f}")
            for name, rates in report.parallel.items()
        ),
    )
    yield Table(
        "an idle session, MB",
        ("", "private", "page tables", "sum", "PSS"),
        tuple(
            (
                name,
                f"{memory.private:.2f}",
                f"{memory.page_tables:.2f}",
                f"{memory.private + memory.page_tables:.2f}",
                f"{memory.proportional:.2f}",
            )
            for name, memory in report.memory.items()
        ),
    )
    kinds = list(dict.fromkeys(kind for kills in report.kills.values() for kind in kills))
    yield Table(
        "milliseconds from the kill to the end of a session",
        ("", *kinds),
        tuple(
            (name, *(_milliseconds(kills.get(kind)) for kind in kinds))
            for name, kills in report.kills.items()
        ),
    )
    yield _timed(
        "milliseconds by isolation layer, each with the previous ones, × fork only", report.layers
    )


def closing_lines(report: SandboxReport) -> Iterator[str]:
    """Yield the lines below the tables: the crowd, missing contestants, the machine."""
    if report.crowd is not None:
        crowd = report.crowd
        yield (
            f"{crowd.sessions:,} live sessions: opened in {crowd.open_seconds:.1f} s, "
            f"{crowd.memory_mb:.1f} MB each, "
            f"then {crowd.turns_a_second:,.0f} turns/s from 8 threads "
            f"(median {crowd.median_ms:.2f} ms, 95 % under {crowd.slowest_ms:.1f} ms)"
        )
        if crowd.stopped_by:
            yield f"  no more because: {crowd.stopped_by}"
    yield from _comparisons(report)
    for name, how in report.missing.items():
        yield f"skipped {name}: {how}"
    machine = report.machine
    yield f"machine {machine.processor}, {machine.cores} core(s), {machine.memory_gb} GB"
    yield f"        {machine.system}, as {machine.user}"
    yield f"        {machine.libraries}"
    yield (
        f"        load {report.load_before:.2f} at the start, {report.load_after:.2f} at the end; "
        f"{report.rounds} rounds, seed {report.seed}"
    )


def as_json(report: SandboxReport) -> str:
    """Return all measurements, including the seconds of each round."""
    data: dict[str, Any] = asdict(report)
    for part in ("turns", "episodes", "layers"):
        result: Result = getattr(report, part)
        data[part] = [_entry(result, name, row) for row in result.rows for name in result.names]
    return json.dumps(data, indent=1)


def _timed(title: str, result: Result) -> Table:
    return Table(
        title,
        ("", *(row.name for row in result.rows)),
        tuple((name, *(_cell(result, name, row) for row in result.rows)) for name in result.names),
    )


def _cell(result: Result, name: str, row: Row) -> str:
    median = result.median(name, row.name)
    ratio = result.ratio(name, row.name, row.baseline)
    if median is None:
        return _NOT_MEASURED
    if ratio is None or name == row.baseline:
        return _milliseconds(median)
    shown = f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"
    return f"{_milliseconds(median)} ×{shown}"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return _NOT_MEASURED
    value = 1e3 * seconds
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def _comparisons(report: SandboxReport) -> Iterator[str]:
    """Yield the ratios between contestants that are not baselines."""
    turns = report.turns
    times = turns.ratio("docker exec", "print", FULL)
    if times is not None:
        yield f"docker exec takes {times:,.0f} times as long as {FULL} for a print"
    pairs = [(row.name, turns.ratio(DOCKER, row.name, FULL)) for row in turns.rows]
    known = [f"{name} {ratio:.2f}" for name, ratio in pairs if ratio is not None]
    if known:
        yield f"{DOCKER} × {FULL}: {', '.join(known)}"
    yield f"baselines: {BARE} for print, crop and figure, {NO_ISOLATION} for start and cycle"


def _entry(result: Result, name: str, row: Row) -> dict[str, Any]:
    return {
        "contestant": name,
        "row": row.name,
        "median_seconds": result.median(name, row.name),
        "baseline": row.baseline,
        "ratio": result.ratio(name, row.name, row.baseline),
        "seconds": list(result.seconds[name, row.name]),
    }
