"""What the kernel says of a process, whatever the code in it claims: processor time, threads."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


class KernelView:
    """A live view of one process.

    Args:
        process_fd: Its pidfd; where ``/proc`` does not show its id, nothing is known of it.
    """

    def __init__(self, process_fd: int) -> None:
        self._clock: int | None = None
        self._tasks = -1
        process_id = _process_id(process_fd)
        if process_id is not None:
            self._clock = (~process_id << 3) | 2  # CPUCLOCK_SCHED, as clock_getcpuclockid makes it
            with contextlib.suppress(OSError):
                self._tasks = os.open(f"/proc/{process_id}/task", os.O_RDONLY | os.O_DIRECTORY)

    def cpu_seconds(self) -> float:
        """Give the processor time of all its threads; 0.0 when it is unknown or has ended."""
        if self._clock is None:
            return 0.0
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            return 0.0

    def thread_count(self) -> int:
        """Give the number of its threads; 0 when it is unknown or has ended."""
        if self._tasks < 0:
            return 0
        try:
            return os.fstat(self._tasks).st_nlink - 2  # every thread is a folder
        except OSError:
            return 0

    def close(self) -> None:
        """Let go of it."""
        if self._tasks >= 0:
            os.close(self._tasks)
            self._tasks = -1


def _process_id(process_fd: int) -> int | None:
    try:
        for line in Path(f"/proc/self/fdinfo/{process_fd}").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Pid" and int(value) > 0:
                return int(value)
    except (OSError, ValueError):
        return None
    return None
