"""Results of the rollout and update benchmarks: tables in 80 columns, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from .rollout import RolloutReport, work_line
from .tables import Table
from .update import OURS, PLAIN, UPDATE, UpdateReport


def rollout_tables(report: RolloutReport) -> Iterator[Table]:
    """Yield one table per group: speed, and the speedup of ours."""
    for group in report.groups:
        yield Table(
            f"{group.title}, {group.rate} per second",
            ("", group.rate, "ours is"),
            tuple(
                (name, f"{group.speed(name):,.1f}", f"×{group.ratio(name):.2f}")
                for name in group.rounds
            ),
        )


def rollout_lines(report: RolloutReport) -> Iterator[str]:
    """Yield the lines below the tables."""
    yield work_line(report)
    yield "a step of ours leaves out trajectories whose advantage is 0; TRL computes them too"
    for name, how in report.missing.items():
        yield f"skipped {name}: {how}"
    yield from _where(report)


def update_table(report: UpdateReport) -> Table:
    """Return seconds, ratios and losses."""
    result = report.result
    return Table(
        "forward and backward of one batch",
        ("", "seconds", f"of {PLAIN.split(', ')[1]}", "loss"),
        tuple(
            (
                name,
                f"{result.median(name, UPDATE) or 0.0:.3f}",
                f"{result.ratio(name, UPDATE, PLAIN) or 0.0:.2f}",
                f"{report.losses[name]:.7f}",
            )
            for name in result.names
        ),
    )


def update_lines(report: UpdateReport) -> Iterator[str]:
    """Yield the lines below the table."""
    ratio = report.result.ratio(PLAIN, UPDATE, OURS)
    if ratio is not None:
        yield f"ours is ×{ratio:.2f} as fast as {PLAIN}"
    yield f"{report.tokens:,} tokens and {report.pictures} images in the batch"
    if report.share is not None:
        yield (
            f"{report.flops / 1e9:.1f} GFLOP in products, {report.share:.0%} of the speed of a "
            f"plain matrix product on this machine ({report.product_flops / 1e9:.1f} GFLOP/s)"
        )
    yield from _where(report)


def as_json(report: RolloutReport | UpdateReport) -> str:
    """Return all measurements."""
    data: dict[str, Any] = asdict(report)
    if isinstance(report, UpdateReport):
        result = report.result
        data["result"] = {name: list(result.seconds[name, UPDATE]) for name in result.names}
        data["share"] = report.share
    else:
        for group, shown in zip(report.groups, data["groups"], strict=True):
            shown["ratio"] = {name: group.ratio(name) for name in group.rounds}
    return json.dumps(data, indent=1)


def _where(report: RolloutReport | UpdateReport) -> Iterator[str]:
    machine = report.machine
    rounds = report.rounds if isinstance(report, RolloutReport) else _rounds(report)
    yield f"machine {machine.processor}, {machine.cores} core(s), {machine.memory_gb} GB"
    yield f"        {machine.system}, {report.threads} thread(s) of torch"
    yield (
        f"        load {report.load_before:.2f} at the start, {report.load_after:.2f} at the "
        f"end; {rounds} rounds; model {report.model}"
    )


def _rounds(report: UpdateReport) -> int:
    return len(report.result.seconds[OURS, UPDATE])
