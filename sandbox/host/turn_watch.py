"""The host's supervision of a running block: its limits, and its share of the cores."""

from __future__ import annotations

import time
from typing import Protocol

from .memory.watch import MemoryWatch
from .turn_clock import Step, TurnClock
from .turn_gate import SLICE_SECONDS, Place

_START_SECONDS = 60.0
_BUSY_SHARE = 0.25  # of a core, from which a block counts as computing


class Overrun(Exception):  # noqa: N818 - an event within the host
    """A block that ran past its time limit and the grace period after it."""


class OverMemory(Exception):  # noqa: N818 - an event within the host
    """A block whose session holds more memory than its limit."""


class Runner(Protocol):
    """Process that runs a block."""

    def interrupt(self) -> None:
        """Signal the block that its time is up."""
        ...

    def pause(self) -> None:
        """Stop the process."""
        ...

    def resume(self) -> None:
        """Let a stopped process continue."""
        ...


class TurnWatch:
    """Interrupts and ends a block by its limits, and shares the cores with other turns.

    A block that sleeps gives up its place. One that computes keeps it for a slice; after that, or
    without a place, its process is stopped until the gate grants one. A block whose threads compute
    side by side needs a place for each, and one that was starved runs with all of them.

    Args:
        runner: Process that runs the block.
        clock: Clock of the block.
        place: Its place at the gate, which is held.
        memory: Limit on the memory of its session; None for none.
        is_measured: Whether the kernel's accounting of the process is known; if it is not, the
            block counts as computing.
    """

    def __init__(
        self,
        runner: Runner,
        clock: TurnClock,
        place: Place,
        *,
        is_measured: bool,
        memory: MemoryWatch | None = None,
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._place = place
        self._memory = memory
        self._is_measured = is_measured

    @property
    def seconds_to_look(self) -> float:
        """Seconds until `look` is due."""
        seconds = self._clock.seconds_to_look
        return seconds if self._memory is None else min(seconds, self._memory.seconds_to_look)

    def look(self) -> None:
        """Check the limits that are due, then the block's share of the cores.

        Raises:
            Overrun: The block has to be killed.
            OverMemory: The same, for its memory.
            SandboxError: The machine gave the block next to no processor time.
        """
        if self._memory is not None and self._memory.is_over():
            raise OverMemory
        if self._memory is None or self._clock.seconds_to_look <= 0:
            self._look_at_clock()

    def _look_at_clock(self) -> None:
        step = self._clock.look()
        if step is Step.KILL:
            raise Overrun
        if step is Step.INTERRUPT:
            self._runner.interrupt()
        self._share()
        if self._place.held:
            self._clock.look_within(SLICE_SECONDS)

    def _share(self) -> None:
        place = self._place
        cores = self._clock.cores_wanted() if self._is_measured else 1.0
        if cores < _BUSY_SHARE:
            place.lend()
            return
        wanted = place.most if self._clock.is_starved else round(cores)
        place.width = max(1, min(wanted, place.most))
        if place.held == place.width and not place.is_due:
            return
        if not place.renew():
            self._wait_stopped()

    def _wait_stopped(self) -> None:
        with self._clock.stopped():
            self._runner.pause()
            self._place.wait()
            self._runner.resume()


class StartWatch:
    """Time limit on a session's first message."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + _START_SECONDS

    @property
    def seconds_to_look(self) -> float:
        """Seconds until the time is up."""
        return max(0.0, self._deadline - time.monotonic())

    def look(self) -> None:
        """Check the time.

        Raises:
            Overrun: The session did not start in time.
        """
        if time.monotonic() >= self._deadline:
            raise Overrun
