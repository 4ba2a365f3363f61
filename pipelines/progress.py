"""Shows how a stage gets on: a bar with time left in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

PLAIN_SECONDS = 10.0
"""A plain line at most this often."""


class Bar(Protocol):
    """One stage's progress."""

    def reach(self, done: int, *, note: str = "") -> None:
        """Say how many steps are done, with a few words on how it goes."""
        ...


class Progress(Protocol):
    """Where progress is shown."""

    def bar(self, name: str, total: int, *, done: int = 0) -> AbstractContextManager[Bar]:
        """Show a bar while the context lasts; ``done`` steps were done before."""
        ...

    def say(self, text: str) -> None:
        """Print a line."""
        ...


class PlainProgress:
    """Prints a line now and then: for logs and for CI."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._stream or sys.stderr, flush=True)

    @contextmanager
    def bar(self, name: str, total: int, *, done: int = 0) -> Generator[Bar]:
        """Print the first step, the last, and one every ten seconds."""
        yield _PlainBar(self, name, total, done)


class _PlainBar:
    def __init__(self, progress: PlainProgress, name: str, total: int, done: int) -> None:
        self._progress = progress
        self._name = name
        self._total = total
        self._done = done
        self._first: int | None = None
        self._started = self._said = self._first_at = time.monotonic()

    def reach(self, done: int, *, note: str = "") -> None:
        """Take note, and print when a line is due."""
        now = time.monotonic()
        if self._first is None:  # the rate counts from here: set-up and resumed steps are no steps
            self._first, self._first_at = done, now
        self._done = done
        if self._done < self._total and now - self._said < PLAIN_SECONDS:
            return
        self._said = now
        times = f"{format_seconds(now - self._started)} so far"
        if self._done > self._first:
            rate = (now - self._first_at) / (self._done - self._first)
            times += f", {format_seconds(rate * max(0, self._total - self._done))} left"
        self._progress.say(
            f"{self._name:<22} {self._done}/{self._total}  {times}{'  ' + note if note else ''}"
        )


class RichProgress:
    """Draws bars with rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, highlight=False)

    @contextmanager
    def bar(self, name: str, total: int, *, done: int = 0) -> Generator[Bar]:
        """Draw a bar with time passed and time left."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("[bold]{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}", markup=True),
        )
        with Bars(*columns, console=self._console, refresh_per_second=4) as bars:
            task = bars.add_task(name, total=total, completed=done, note="")

            class RichBar:
                def reach(self, done: int, *, note: str = "") -> None:
                    bars.update(task, completed=done, note=note)

            yield RichBar()


def open_progress() -> PlainProgress | RichProgress:
    """Give bars in a terminal, plain lines elsewhere."""
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


def format_seconds(seconds: float) -> str:
    """Write a time as ``7 s``, ``3:05`` or ``1:02:03``.

    >>> format_seconds(185.2)
    '3:05'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_figures(figures: Mapping[str, float | None], *, limit: int = 4) -> str:
    """Write the first few figures as ``loss 0.31  lr 0.001``."""
    shown = [(k, v) for k, v in figures.items() if v is not None][:limit]
    return "  ".join(f"{name} {value:.3g}" for name, value in shown)
