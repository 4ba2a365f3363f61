"""Ends a block whose time is up: an exception that code can hinder, but not for long.

The host keeps the wall clock, as only it can tell a slow block from one that waits for a core; it
strikes with SIGALRM. Processor time is counted here, by the kernel. A block that catches or masks
both is killed by the host a moment later.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from time import process_time
from types import FrameType
from typing import TypeAlias

Look: TypeAlias = Callable[[FrameType | None], None]
"""What a session does now and then while a block runs, told where; it may raise there."""

_REPEAT_SECONDS = 0.1  # a block that swallows the time-out meets it again and again
_LOOK_SECONDS = 0.005  # of processor time
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_PROF, signal.ITIMER_VIRTUAL)


class TimeLimitReached(BaseException):
    """Raised in the block when its time is up; no ``except Exception`` sees it."""


class Stopwatch:
    """Raises `TimeLimitReached` in the running block when wall or processor time is used up.

    Args:
        wall_seconds: What the host will strike at; named in the message.
        cpu_seconds: Processor time after which the kernel strikes.
        look: Called every few milliseconds of the block's processor time.
    """

    def __init__(self, wall_seconds: float, cpu_seconds: float, look: Look | None) -> None:
        self._wall = wall_seconds
        self._cpu = cpu_seconds
        self._look = look
        self._cpu_end = 0.0  # processor seconds of this process
        self._is_running = False
        self.verdict: str | None = None  # what limit was passed, once one was

    def start(self) -> None:
        """Undo what earlier code did to the signals and begin to count."""
        signal.signal(signal.SIGALRM, self._on_wall)
        signal.signal(signal.SIGPROF, self._on_cpu)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._is_running = True
        self._cpu_end = process_time() + self._cpu
        if self._look:
            signal.setitimer(signal.ITIMER_PROF, _LOOK_SECONDS, _LOOK_SECONDS)
        else:
            signal.setitimer(signal.ITIMER_PROF, self._cpu, _REPEAT_SECONDS)

    def stop(self) -> None:
        """Stop counting; timers that the block set itself end here too."""
        self._is_running = False
        for timer in _TIMERS:
            signal.setitimer(timer, 0.0)

    def _on_wall(self, _: int, frame: FrameType | None) -> None:
        if self._is_running:
            signal.setitimer(signal.ITIMER_REAL, _REPEAT_SECONDS, _REPEAT_SECONDS)
        self._interrupt(f"the block ran longer than {self._wall:g} s", frame)

    def _on_cpu(self, _: int, frame: FrameType | None) -> None:
        if not self._is_running:
            return
        if self._look and process_time() < self._cpu_end:
            self._look(frame)
            return
        signal.setitimer(signal.ITIMER_PROF, _REPEAT_SECONDS, _REPEAT_SECONDS)
        self._interrupt(f"the block used more than {self._cpu:g} s of processor time", frame)

    def _interrupt(self, verdict: str, frame: FrameType | None) -> None:
        # Where both limits are met at once, the second signal hits `stop`; the first one holds.
        is_stopping = frame is not None and frame.f_code is Stopwatch.stop.__code__
        if self._is_running and not is_stopping:
            self.verdict = self.verdict or verdict
            raise TimeLimitReached(verdict)
