"""Output of commands: lines, the final table, and where the results are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..analysis.results import Summary
    from ..report import Report
    from ..runs.session import RunSession
    from ..store.lineage import StageRun


_WIDTH = 80


def say(text: str = "") -> None:
    """Print a line; control characters, and names in another encoding, as escapes.

    Texts of models, tasks and files cannot control the terminal.
    """
    from ...sandbox.plain_text import escape_controls  # not needed for --help

    print(escape_controls(text), flush=True)  # noqa: T201


def draw(sequence: str) -> None:
    """Send a sequence of our own to the terminal, as it is; never a model's text."""
    print(sequence, flush=True)  # noqa: T201


def print_report(session: RunSession, report: Report) -> None:
    """Print the final table, the paired differences, and where the results are."""
    print_table(report.summary)
    say()
    say(f"report   {report.html}")
    viewer = report.folder / "viewer.html"
    if viewer.is_file():
        say(f"viewer   {viewer}")
    say(f"store    {session.home.root}")
    say("browse   codedance ui")


def report_document(session: RunSession, run_id: str, report: Report) -> dict[str, object]:
    """Return the content of `print_report` as a JSON document."""
    viewer = report.folder / "viewer.html"
    return {
        "run": run_id,
        "report": report.html,
        "viewer": viewer if viewer.is_file() else None,
        "store": session.home.root,
        **summary_document(report.summary),
        "is_complete": session.store.lineage.get(run_id).is_complete,
    }


def summary_document(summary: Summary) -> dict[str, object]:
    """Return the metrics of an evaluation by ``policy/mode`` and group of tasks."""
    return {
        "evaluation": summary.run.id,
        "cells": {
            phase: {group: summary.cells[phase, group] for group in summary.groups}
            for phase in summary.phases
        },
        "differences": {
            mode: {group: gap for (of, group), gap in summary.differences.items() if of == mode}
            for mode in summary.modes
        },
        "within_tenth": summary.within_tenth,
        "lost": summary.lost,
        "is_complete": not any(summary.lost.values()),
    }


def run_document(run: StageRun) -> dict[str, object]:
    """Return a run as in the lineage, without its parameters."""
    return {
        "run": run.id,
        "stage": run.stage,
        "status": run.status,
        "preset": run.preset,
        "seed": run.seed,
        "pipeline": run.parent,
        "inputs": run.inputs,
        "outputs": run.outputs,
        "is_complete": run.is_complete,
        "seconds": run.seconds,
        "error": run.error,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
    }


def print_stage(run: StageRun) -> None:
    """Print the outputs of a stage."""
    say(run.id)
    for name, value in run.outputs.items():
        say(f"  {name:<14} {value}")


def print_table(summary: Summary) -> None:
    """Print one table per mode: with rich in a terminal, as plain columns elsewhere."""
    from ..analysis.results import difference_lines, lost_lines, table_head, table_rows

    head = table_head(summary)
    for mode in summary.modes:
        rows = table_rows(summary, mode)
        say()
        if sys.stdout.isatty():
            _print_rich(f"held-out tasks, {mode}", head, rows)
        else:
            _print_plain(f"held-out tasks, {mode}", head, rows)
    say()
    for line in (*difference_lines(summary), *lost_lines(summary)):
        say(line)


def _print_rich(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Draw the table; in two parts if the terminal is too narrow for one."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ...sandbox.plain_text import escape_controls

    def cell(text: str) -> Text:  # not as markup: a name may hold brackets
        return Text(escape_controls(text))

    console = Console()
    for number, columns in enumerate(table_parts(head, rows, console.width)):
        shown = cell(title) if number == 0 else None
        table = Table(title=shown, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in columns:
            justify = "left" if column == 0 else "right"
            table.add_column(cell(head[column]), justify=justify, no_wrap=True)
        for row in rows:
            cells = [cell(row[column]) for column in columns]
            table.add_row(*cells, end_section=row[0] in ("all", "hard"))
        console.print(table)


def table_parts(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Return the columns of each part of a table that has to fit a terminal's width.

    Accuracies come before tool use; each part begins with the names of the rows.

    >>> table_parts(["tasks", "a: right", "a: tool calls"], [["all", "9", "1"]], 20)
    [[0, 1], [0, 2]]
    """
    widest = [max(len(row[n]) for row in (head, *rows)) + 2 for n in range(len(head))]
    if sum(widest) <= width:
        return [list(range(len(head)))]
    use = [n for n, name in enumerate(head) if name.endswith(("tool calls", "code ran"))]
    return [[n for n in range(len(head)) if n not in use], [0, *use]]


def _print_plain(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Print the table in 80 columns; in two parts if it is wider, as in a terminal."""
    say(title)
    for columns in table_parts(head, rows, _WIDTH):
        print_columns([[row[column] for column in columns] for row in (head, *rows)])


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells in columns as wide as their widest cell."""
    for line in column_lines(rows):
        say(line)


def column_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines, in columns as wide as their widest cell."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
