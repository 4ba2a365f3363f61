"""Progress of a stage: rate, time left, metrics, alarms.

In a terminal it is a live bar with the metrics below it; elsewhere (a file, a pipe, CI,
``TERM=dumb``) it is a plain line every few seconds, without escape codes.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from ...sandbox.plain_text import escape_controls

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PLAIN_SECONDS = 10.0
"""Shortest time between two plain lines."""
WINDOW_SECONDS = 60.0
"""Length of the moving window over which the rate and the time left are estimated."""


class Bar(Protocol):
    """One stage's progress."""

    def reach(self, done: int, *, note: str = "") -> None:
        """Report how many steps are done, with a short note."""
        ...

    def ring(self, alarm: str) -> None:
        """Show that an alarm was raised until the bar ends."""
        ...


class Progress(Protocol):
    """A display of progress."""

    def bar(self, name: str, total: int, *, done: int = 0) -> AbstractContextManager[Bar]:
        """Show a bar while the context lasts; ``done`` steps were completed before."""
        ...

    def say(self, text: str) -> None:
        """Print a line."""
        ...


class Pace:
    """The current rate of steps, estimated over the last minute.

    Steps before the first report do not count: a resumed run did them earlier.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, done: int) -> None:
        """Record how many steps are done."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """Steps per second; None before two reports."""
        if len(self._seen) < 2:
            return None
        (begun, first), (now, last) = self._seen[0], self._seen[-1]
        return (last - first) / (now - begun) if last > first and now > begun else None

    def left(self, total: int) -> float | None:
        """Return the seconds until ``total`` at the current rate; None where that is unknown."""
        if self._seen and self._seen[-1][1] >= total:
            return 0.0
        return None if self.rate is None else (total - self._seen[-1][1]) / self.rate


class PlainProgress:
    """Progress as plain lines, for logs and CI."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def say(self, text: str) -> None:
        """Print a line."""
        print(escape_controls(text), file=self._stream or sys.stderr, flush=True)

    @contextmanager
    def bar(self, name: str, total: int, *, done: int = 0) -> Generator[Bar]:
        """Print a line every ten seconds, and one for the last step."""
        yield _PlainBar(self, name, total, done)


class _PlainBar:
    def __init__(self, progress: PlainProgress, name: str, total: int, done: int) -> None:
        self._progress = progress
        self._name = name
        self._total = total
        self._done = done
        self._pace = Pace()
        self._alarms: Counter[str] = Counter()
        self._started = self._said = time.monotonic()

    def reach(self, done: int, *, note: str = "") -> None:
        """Record the steps, and print a line when one is due."""
        now = time.monotonic()
        self._pace.note(now, done)
        self._done = done
        if self._done < self._total and now - self._said < PLAIN_SECONDS:
            return
        self._said = now
        times = f"{format_seconds(now - self._started)} so far"
        if (left := self._pace.left(self._total)) is not None:
            times += f", {format_seconds(left)} left"
        parts = [times, format_rate(self._pace.rate), note, format_alarms(self._alarms)]
        shown = "  ".join(part for part in parts if part)
        self._progress.say(f"{self._name:<22} {self._done}/{self._total}  {shown}")

    def ring(self, alarm: str) -> None:
        """Count the alarm."""
        self._alarms[alarm] += 1


class RichProgress:
    """Progress as rich bars: a line with rate and time left, metrics and alarms below it.

    Args:
        console: Console to draw on; None for standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(escape_controls(text), markup=False, highlight=False)

    @contextmanager
    def bar(self, name: str, total: int, *, done: int = 0) -> Generator[Bar]:
        """Draw a bar while the context lasts."""
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}"),
        )
        bars = Bars(*columns, console=self._console, auto_refresh=False, expand=True)
        task = bars.add_task(escape_controls(name), total=total, completed=done, pace="")
        pace, alarms, words = Pace(), Counter[str](), [""]

        class RichBar:
            def reach(self, done: int, *, note: str = "") -> None:
                pace.note(time.monotonic(), done)
                words[0] = note
                bars.update(task, completed=done, pace=_rich_pace(pace, total))

            def ring(self, alarm: str) -> None:
                alarms[alarm] += 1

        def draw() -> Group:
            return Group(bars.get_renderable(), *_rich_notes(words[0], alarms))

        with Live(get_renderable=draw, console=self._console, refresh_per_second=4):
            yield RichBar()


def _rich_pace(pace: Pace, total: int) -> str:
    left = pace.left(total)
    parts = ["" if left is None else f"{format_seconds(left)} left", format_rate(pace.rate)]
    return "  ".join(part for part in parts if part)


def _rich_notes(note: str, alarms: Counter[str]) -> list[Text]:
    """Return the non-empty lines below a bar: metrics and alarms."""
    from rich.text import Text

    lines = [Text(f"  {escape_controls(note)}", style="dim")] if note else []
    if alarms:
        lines.append(Text(f"  {escape_controls(format_alarms(alarms))}", style="bold red"))
    return lines


def open_progress() -> PlainProgress | RichProgress:
    """Return `RichProgress` in a terminal, `PlainProgress` elsewhere."""
    can_draw = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return RichProgress() if can_draw else PlainProgress()


def format_rate(rate: float | None) -> str:
    """Format a rate as ``12/s`` or ``3.1/s``; below one per second, as the time of each step.

    >>> format_rate(12.3), format_rate(3.14), format_rate(0.25), format_rate(None)
    ('12/s', '3.1/s', '4.0 s each', '')
    """
    if not rate:
        return ""
    if rate < 1.0:
        return f"{1 / rate:.1f} s each" if rate > 0.01 else f"{format_seconds(1 / rate)} each"
    return f"{rate:.1f}/s" if rate < 10.0 else f"{rate:.0f}/s"


def format_alarms(alarms: Mapping[str, int]) -> str:
    """Format the alarms raised so far, with the count of repeated ones.

    >>> format_alarms({"entropy": 1, "accuracy": 2})
    'ALARMS: entropy, accuracy (2)'
    """
    names = [name if count == 1 else f"{name} ({count})" for name, count in alarms.items()]
    return f"ALARMS: {', '.join(names)}" if names else ""


def format_seconds(seconds: float) -> str:
    """Format a time as ``7 s``, ``3:05`` or ``1:02:03``.

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
    """Format the first few metrics as ``loss 0.31  lr 0.001``."""
    shown = [(k, v) for k, v in figures.items() if v is not None][:limit]
    return "  ".join(f"{name} {value:.3g}" for name, value in shown)
