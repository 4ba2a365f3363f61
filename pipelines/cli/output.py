"""What commands print: lines, the closing table, where things lie."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..desk import Desk
    from ..report import Report
    from ..results import Summary
    from ..store import StageRun


def say(text: str = "") -> None:
    """Print a line for the reader of the terminal."""
    print(text, flush=True)  # noqa: T201


def print_report(desk: Desk, report: Report) -> None:
    """Print the closing table, the paired differences, and where to look further."""
    from ..results import difference_lines

    print_table(report.summary)
    for line in difference_lines(report.summary):
        say(line)
    say()
    say(f"report   {report.html}")
    say(f"store    {desk.home.root}")
    say("browse   codedance ui")


def print_stage(run: StageRun) -> None:
    """Print what a stage made."""
    say(run.id)
    for name, value in run.outputs.items():
        say(f"  {name:<14} {value}")


def print_table(summary: Summary) -> None:
    """Print the table: with rich in a terminal, as plain columns elsewhere."""
    from ..results import table_rows

    head, rows = table_rows(summary)
    if sys.stdout.isatty():
        _print_rich(head, rows, per_group=len(summary.phases))
    else:
        _print_plain(head, rows)


def _print_rich(head: list[str], rows: list[list[str]], *, per_group: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Held-out results", title_justify="left")
    for name in head:
        table.add_column(name)
    for number, row in enumerate(rows):
        shown = row if number % per_group == 0 else ["", *row[1:]]
        table.add_row(*shown, end_section=number % per_group == per_group - 1)
    Console().print(table)


def _print_plain(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    for row in (head, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
