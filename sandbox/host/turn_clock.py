"""Decides when a running block has had its time, and whose fault it is when it has not.

Time spent waiting for a core is the machine's: a block that mostly waited gets that time on top,
up to a bound, and past it the failure is ours. What a block's own threads take from each other is
its own affair (`KernelView.starved_seconds`), so that spinning threads are no place to hide.
"""

from __future__ import annotations

import time
from enum import Enum

from ..types import Limits, SandboxError
from .kernel_view import KernelView

GRACE_SECONDS = 1.0
"""From the strike that code may catch to the kill that it cannot."""

PATIENCE_SECONDS = 10.0
"""How much longer than `_MOST_TIMES` its limit a block may last that gets no core."""

_MOST_TIMES = 8.0
_BUSY_SHARE = 0.25  # of a core, from which on a block computes
_FIRST_LOOK_SECONDS = 0.1
_SLICE_SECONDS = 1.0
_SHORTEST_SLICE = 0.01
_CPU_MARGIN_SECONDS = 0.2  # for what the worker does about the block


class Step(Enum):
    """What is to be done with a block that still runs."""

    GO_ON = 0
    INTERRUPT = 1
    KILL = 2


class TurnClock:
    """The time of one block, from its making on.

    Args:
        view: What the kernel says of the process.
        limits: Bounds on wall and processor time.
        slack: What they are multiplied by; a replay meets other loads than the first run did.
        patience_seconds: How long past eight times its limit a block may wait for a core.
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

    @property
    def wall_seconds(self) -> float:
        """Time since the block was sent."""
        return time.monotonic() - self._started

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the block."""
        return max(0.0, self._view.cpu_seconds() - self._before.cpu_seconds)

    @property
    def is_busy(self) -> bool:
        """Whether the block computes, or would if it had a core, rather than sleep or wait."""
        wanted = self.cpu_seconds + self._view.starved_seconds(self._before)
        return wanted > _BUSY_SHARE * self.wall_seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is up, so that a block that says it went well has hidden from that."""
        return self._kill_at is not None or self.cpu_seconds > self.cpu_limit + _CPU_MARGIN_SECONDS

    @property
    def seconds_to_look(self) -> float:
        """How long to wait for the block before the next `look`."""
        due = self._kill_at if self._kill_at is not None else self._interrupt_at
        return max(0.0, min(due, self._next_look) - time.monotonic())

    def look(self) -> Step:
        """Say what is to be done with a block that has not ended yet.

        Raises:
            SandboxError: It got next to no core for so long that waiting on is pointless.
        """
        now = time.monotonic()
        slice_seconds = min(_SLICE_SECONDS, now - self._started, self._cpu_left())
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
        """Say which limit a killed block passed."""
        if self.cpu_seconds > self.cpu_limit:
            return f"used more than {self._limits.cpu_seconds:g} s of processor time"
        return f"ran longer than {self._limits.wall_seconds:g} s"

    def _cpu_left(self) -> float:
        return self.cpu_limit + GRACE_SECONDS - self.cpu_seconds

    def _is_excused(self, now: float) -> bool:
        """Return a block that mostly waited for a core the time that it missed."""
        wall = now - self._started
        starved = min(wall, self._view.starved_seconds(self._before))
        left = self.wall_limit - (wall - starved)
        if starved <= wall / 2 or left <= 0:
            return False
        if wall >= self._most_seconds:
            raise SandboxError(
                f"a block waited {starved:.1f} of {wall:.1f} s for a core; this machine runs more "
                "than it can: start fewer processes beside the sandbox"
            )
        self._interrupt_at = now + left
        return True
