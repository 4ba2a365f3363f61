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
    print_table(report.summary)
    say()
    say(f"report   {report.html}")
    viewer = report.folder / "viewer.html"
    if viewer.is_file():
        say(f"viewer   {viewer}")
    say(f"store    {desk.home.root}")
    say("browse   codedance ui")


def print_stage(run: StageRun) -> None:
    """Print what a stage made."""
    say(run.id)
    for name, value in run.outputs.items():
        say(f"  {name:<14} {value}")


def print_table(summary: Summary) -> None:
    """Print a table a mode: with rich in a terminal, as plain columns elsewhere."""
    from ..results import difference_lines, lost_lines, table_head, table_rows

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
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row, end_section=row[0] in ("all", "hard"))
    Console().print(table)


def _print_plain(title: str, head: list[str], rows: list[list[str]]) -> None:
    say(title)
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    for row in (head, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
