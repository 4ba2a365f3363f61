"""The table of the orchestration benchmark, and the lines below it."""

from __future__ import annotations

from collections.abc import Iterator

from ..tables import Table
from .contest import CONTESTANTS, Report


def table(report: Report) -> Table:
    """Return medians by contestant, and what was added to the ideal time."""
    rows = [
        (
            name,
            f"{report.median(name).seconds:.1f}",
            f"{report.median(name).seconds - report.ideal_seconds:+.1f}",
            f"{100.0 * report.above(name):+.1f} %",
            f"{report.median(name).processor_seconds:.1f}",
        )
        for name in report.trials
    ]
    title = f"{report.episodes} episodes; engine and tools alone {report.ideal_seconds:.1f} s"
    return Table(title, ("", "seconds", "added", "tax", "processor s"), tuple(rows))


def lines(report: Report) -> Iterator[str]:
    """Yield the rounds, the differences between contestants, versions and the machine."""
    for name, trials in report.trials.items():
        yield f"{name}: {', '.join(f'{one.seconds:.1f}' for one in trials)} s"
    for one in CONTESTANTS:
        if one.name in report.trials and one.differs:
            yield f"{one.name}: {one.differs}"
    for name, reason in report.missing.items():
        yield f"{name}: left out: {reason}"
    for name, version in report.versions.items():
        yield f"{name} {version}"
    machine = report.machine
    highest = max((one.load for trials in report.trials.values() for one in trials), default=0.0)
    yield f"machine {machine.processor}, {machine.cores} core(s), {machine.memory_gb} GB"
    yield f"        load {report.load_before:.2f} at the start, at most {highest:.2f}"
