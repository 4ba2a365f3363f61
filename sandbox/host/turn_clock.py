"""Time limits of a running block, adjusted for the time spent waiting for a core.

Time spent waiting for a core is caused by the machine: a block that mostly waited is granted that
time in addition; past a first limit it runs without neighbours, past a second the failure is one of
our infrastructure. Contention among a block's own threads is not excused
(`KernelView.starved_seconds`), so that a block cannot evade its limits with spinning threads. Time
for which the host stopped the block in favour of other turns does not count at all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from enum import Enum

from ..types import Limits, SandboxError
from .kernel_view import KernelView

GRACE_SECONDS = 1.0
"""Time from the interrupt, which code may catch, to the kill, which it cannot."""

PATIENCE_SECONDS = 10.0
"""Time beyond `_MOST_TIMES` its limit that a block may wait for a core."""

_MOST_TIMES = 8.0
_ALONE_TIMES = 4.0  # times its limit after which a starved block runs without neighbours
_FIRST_LOOK_SECONDS = 0.1
_LONGEST_LOOK_SECONDS = 0.5
_SHORTEST_SLICE = 0.01
_CPU_MARGIN_SECONDS = 0.2  # for the worker's own work on the block


class Step(Enum):
    """Action to take on a block that is still running."""

    GO_ON = 0
    INTERRUPT = 1
    KILL = 2


class TurnClock:
    """Clock of one block, started on construction.

    Args:
        view: The kernel's accounting of the process.
        limits: Limits on wall-clock and processor time.
        slack: Factor of the limits; the machine may be busier in a replay than in the first run.
        patience_seconds: Time past eight times its limit that a block may wait for a core.

    Attributes:
        is_starved: Whether the block has waited for a core so long that it has to run alone.
    """

    def __init__(
        self,
        view: KernelView,
        limits: Limits,
        *,
        slack: float = 1.0,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.wall_limit = limits.wall_seconds * slack
        self.cpu_limit = limits.cpu_seconds * slack
        self._most_seconds = self.wall_limit * _MOST_TIMES + patience_seconds
        self._limits = limits
        self._view = view
        self._before = view.usage()
        self._started = time.monotonic()
        self._interrupt_at = self._started + self.wall_limit
        self._kill_at: float | None = None
        self._next_look = self._started + min(_FIRST_LOOK_SECONDS, self.wall_limit / 4)
        self._last_use, self._last_time = self._before, self._started
        self.is_starved = False

    @property
    def wall_seconds(self) -> float:
        """Time since the block was sent, without the time for which the host stopped it."""
        return time.monotonic() - self._started

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the block."""
        return max(0.0, self._view.cpu_seconds() - self._before.cpu_seconds)

    def cores_wanted(self) -> float:
        """Return how many threads computed, or would have with a core, since the last call."""
        now, use = time.monotonic(), self._view.usage()
        elapsed = now - self._last_time
        wanted = self._view.wanted_seconds(self._last_use)
        self._last_use, self._last_time = use, now
        return wanted / elapsed if elapsed > 0 else 0.0

    @contextlib.contextmanager
    def stopped(self) -> Generator[None]:
        """Exclude the time within from every limit: the host has stopped the process."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._view.note_waiting(afresh=True)
            seconds = time.monotonic() - begun
            self._started += seconds
            self._interrupt_at += seconds
            self._next_look += seconds
            self._last_time += seconds
            if self._kill_at is not None:
                self._kill_at += seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is up; a block that still reports success has evaded the limit."""
        return self._kill_at is not None or self.cpu_seconds > self.cpu_limit + _CPU_MARGIN_SECONDS

    @property
    def seconds_to_look(self) -> float:
        """Seconds to wait for the block before the next `look`."""
        due = self._kill_at if self._kill_at is not None else self._interrupt_at
        return max(0.0, min(due, self._next_look) - time.monotonic())

    def look_within(self, seconds: float) -> None:
        """Make the next `look` due in ``seconds`` at the latest."""
        self._next_look = min(self._next_look, time.monotonic() + seconds)

    def look(self) -> Step:
        """Return the action to take on a block that has not ended yet.

        Raises:
            SandboxError: The block got next to no processor time for too long.
        """
        now = time.monotonic()
        self._view.note_waiting()
        slice_seconds = min(_LONGEST_LOOK_SECONDS, now - self._started, self._cpu_left())
        self._next_look = now + max(_SHORTEST_SLICE, slice_seconds)
        if self._cpu_left() <= 0:
            return Step.KILL
        if self._kill_at is not None:
            return Step.KILL if now >= self._kill_at else Step.GO_ON
        if now < self._interrupt_at or self._is_excused(now):
            return Step.GO_ON
        self._kill_at = now + GRACE_SECONDS
        return Step.INTERRUPT

    def verdict(self) -> str:
        """Return which limit a killed block exceeded."""
        if self.cpu_seconds > self.cpu_limit:
            return f"used more than {self._limits.cpu_seconds:g} s of processor time"
        return f"ran longer than {self._limits.wall_seconds:g} s"

    def _cpu_left(self) -> float:
        return self.cpu_limit + GRACE_SECONDS - self.cpu_seconds

    def _is_excused(self, now: float) -> bool:
        """Grant a block that mostly waited for a core the time that it missed; whether it did."""
        wall = now - self._started
        starved = min(wall, self._view.starved_seconds(self._before))
        left = self.wall_limit - (wall - starved)
        if starved <= wall / 2 or left <= 0:
            return False
        self.is_starved = self.is_starved or wall >= self.wall_limit * _ALONE_TIMES
        if wall >= self._most_seconds:
            raise SandboxError(
                f"a block waited {starved:.1f} of {wall:.1f} s for a core; this machine runs more "
                "than it can: start fewer processes beside the sandbox"
            )
        self._interrupt_at = now + left
        return True
