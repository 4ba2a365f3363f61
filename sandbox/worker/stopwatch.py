"""Time limits of a block, enforced by an exception that code can delay, but not for long.

The host measures wall-clock time, as only it can distinguish a slow block from one that waits for a
core; it interrupts with SIGALRM. Processor time is measured here, by the kernel. A block that
catches or masks both is killed by the host a moment later.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from time import process_time
from types import FrameType
from typing import Any, TypeAlias

Look: TypeAlias = Callable[[FrameType | None], None]
"""Periodic check while a block runs, called with the current frame; may raise in the block."""

_SIGNAL: Any = sys.modules["_signal"]  # `signal` makes enums, and code may change it
_REPEAT_SECONDS = 0.1  # a block that swallows the time-out is interrupted again
_LOOK_SECONDS = 0.005  # of processor time
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_PROF, signal.ITIMER_VIRTUAL)


class TimeLimitReached(BaseException):
    """Raised in the block when its time is up; ``except Exception`` does not catch it."""


class Stopwatch:
    """Raises `TimeLimitReached` in the running block when wall-clock or processor time is used up.

    Args:
        wall_seconds: Time after which the host interrupts; named in the message.
        cpu_seconds: Processor time after which the kernel interrupts.
        look: Check, called every few milliseconds of the block's processor time.
    """

    def __init__(self, wall_seconds: float, cpu_seconds: float, look: Look | None) -> None:
        self._wall = wall_seconds
        self._cpu = cpu_seconds
        self._look = look
        self._cpu_end = 0.0  # processor seconds of this process
        self._is_running = False
        self.verdict: str | None = None  # which limit was exceeded

    def start(self) -> None:
        """Reset the signal handlers that earlier code changed, and start to measure."""
        _SIGNAL.signal(signal.SIGALRM, self._on_wall)
        _SIGNAL.signal(signal.SIGPROF, self._on_cpu)
        _SIGNAL.pthread_sigmask(signal.SIG_SETMASK, ())
        self._is_running = True
        self._cpu_end = process_time() + self._cpu
        if self._look:
            _SIGNAL.setitimer(signal.ITIMER_PROF, _LOOK_SECONDS, _LOOK_SECONDS)
        else:
            _SIGNAL.setitimer(signal.ITIMER_PROF, self._cpu, _REPEAT_SECONDS)

    def stop(self) -> None:
        """Stop measuring; timers that the block set itself are stopped too."""
        self._is_running = False
        for timer in _TIMERS:
            _SIGNAL.setitimer(timer, 0.0)

    def _on_wall(self, _: int, frame: FrameType | None) -> None:
        if self._is_running:
            _SIGNAL.setitimer(signal.ITIMER_REAL, _REPEAT_SECONDS, _REPEAT_SECONDS)
        self._interrupt(f"the block ran longer than {self._wall:g} s", frame)

    def _on_cpu(self, _: int, frame: FrameType | None) -> None:
        if not self._is_running:
            return
        if self._look and process_time() < self._cpu_end:
            self._look(frame)
            return
        _SIGNAL.setitimer(signal.ITIMER_PROF, _REPEAT_SECONDS, _REPEAT_SECONDS)
        self._interrupt(f"the block used more than {self._cpu:g} s of processor time", frame)

    def _interrupt(self, verdict: str, frame: FrameType | None) -> None:
        # Where both limits are reached at once, the second signal hits `stop`; the first counts.
        is_stopping = frame is not None and frame.f_code is Stopwatch.stop.__code__
        if self._is_running and not is_stopping:
            self.verdict = self.verdict or verdict
            raise TimeLimitReached(verdict)
