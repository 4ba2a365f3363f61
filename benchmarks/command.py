"""Shared parts of the benchmark commands: options, tables, and how they run."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from codedance.pipelines.cli import completion
from codedance.pipelines.cli.app import run_single
from codedance.pipelines.cli.output import say

if TYPE_CHECKING:
    from .measuring.tables import Table

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to which all results are written, every round."),
]
TrainedModel = Annotated[
    str | None,
    typer.Option(
        "--policy",
        "--model",
        help="Folder of a trained nano model; by default the bundled one.",
        autocompletion=completion.policies,
    ),
]

_WIDTH = 80


def run_command(command: Callable[..., Any]) -> None:
    """Run a benchmark as a program, with options from the command line and exit codes."""
    run_single(command, f"python -m benchmarks.{command.__name__}")


def show(tables: Iterable[Table], lines: Iterable[str]) -> None:
    """Print tables, and lines below them, in 80 columns."""
    for table in tables:
        _show_table(table)
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        say(textwrap.fill(line, _WIDTH, subsequent_indent=indent))


def write_out(text: str, path: Path | None) -> object:
    """Write the results to a file, if one was named, and return them as a document."""
    if path is not None:
        path.write_text(text, encoding="utf-8")
        say(f"results  {path}")
    return loads(text)


def _show_table(table: Table) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable

    width = None if sys.stdout.isatty() else _WIDTH
    shown = RichTable(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(table.head):
        shown.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*row)
    console = Console(width=width)
    console.print(table.title, style="bold")
    console.print(shown, no_wrap=True)


class Status:
    """A status line with the current measurement; shown in a terminal only."""

    def __enter__(self) -> Status:
        from rich.console import Console

        self._status = Console(stderr=True).status("")
        if sys.stderr.isatty():
            self._status.start()
        return self

    def update(self, text: str) -> None:
        """Show the current measurement."""
        self._status.update(text)

    def __exit__(self, *_: object) -> None:
        self._status.stop()
