"""The kernel's accounting of a process: processor time, waiting time, threads."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_NANOSECOND = 1e-9


@dataclass(frozen=True, slots=True)
class Usage:
    """Resource use of a process at one moment.

    Attributes:
        cpu_seconds: Processor time of all its threads, ended ones included.
        threads: Processor time and run delay (runnable without a core) by thread id, in seconds.
    """

    cpu_seconds: float = 0.0
    threads: Mapping[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )


class KernelView:
    """A live view of one process.

    Args:
        process_fd: Pidfd of the process; where ``/proc`` does not show its id, nothing is known.

    Attributes:
        process_id: Its process id on this machine; None where unknown.
    """

    def __init__(self, process_fd: int) -> None:
        self._clock: int | None = None
        self._tasks = -1
        self._main = ""
        self._main_times = -1
        self._ready = (-1.0, 0.0)  # the main thread: at which processor time, and since when
        self._waited = 0.0  # seconds of a wait that goes on
        self.process_id = process_id = _process_id(process_fd)
        if process_id is not None:
            self._clock = (~process_id << 3) | 2  # CPUCLOCK_SCHED, as clock_getcpuclockid makes it
            self._main = str(process_id)
            with contextlib.suppress(OSError):
                self._tasks = os.open(f"/proc/{process_id}/task", os.O_RDONLY | os.O_DIRECTORY)
                self._main_times = os.open(
                    f"{self._main}/schedstat", os.O_RDONLY, dir_fd=self._tasks
                )

    @property
    def is_known(self) -> bool:
        """Whether the kernel shows the process here."""
        return self._clock is not None

    def cpu_seconds(self) -> float:
        """Return the processor time of all threads; 0.0 when unknown or after the end."""
        if self._clock is None:
            return 0.0
        try:
            return time.clock_gettime(self._clock)
        except OSError:
            return 0.0

    def thread_count(self) -> int:
        """Return the number of threads; 0 when unknown or after the end."""
        if self._tasks < 0:
            return 0
        try:
            return os.fstat(self._tasks).st_nlink - 2  # every thread is a folder
        except OSError:
            return 0

    def usage(self) -> Usage:
        """Return the use so far; takes a few microseconds while there is one thread."""
        cpu_seconds = self.cpu_seconds()
        if self.thread_count() > 1:
            return Usage(cpu_seconds, self._thread_times())
        with contextlib.suppress(OSError):
            if self._main_times >= 0:
                return Usage(cpu_seconds, {self._main: _times(os.pread(self._main_times, 100, 0))})
        return Usage(cpu_seconds)

    def note_waiting(self, *, afresh: bool = False) -> None:
        """Note whether the main thread waits for a core; the kernel counts a wait when it ends.

        A thread that is ready to run at two calls, while its process used no processor time, has
        waited all the time between them: without running, it cannot have slept.

        Args:
            afresh: Whether the time since the last call does not count.
        """
        cpu, now = self.cpu_seconds(), time.monotonic()
        is_ready = not afresh and self._is_main_ready()
        if not is_ready or cpu != self._ready[0]:
            self._ready = (cpu if is_ready else -1.0, now)
        self._waited = now - self._ready[1]

    def starved_seconds(self, before: Usage) -> float:
        """Return the time spent since ``before`` waiting for a core that other processes used.

        That is the longest wait of any thread, minus the run time of the process's other threads: a
        thread may wait for its own siblings.
        """
        ran = self.cpu_seconds() - before.cpu_seconds
        longest = 0.0
        for thread, (cpu, delay) in self._thread_times().items():
            if thread == self._main:
                delay += self._waited
            cpu_before, delay_before = before.threads.get(thread, (0.0, 0.0))
            siblings = max(0.0, ran - (cpu - cpu_before))
            longest = max(longest, delay - delay_before - siblings)
        return longest

    def wanted_seconds(self, before: Usage) -> float:
        """Return the time since ``before`` that the threads ran or waited for a core, summed."""
        now = self.usage()
        wanted = 0.0
        for thread, times in now.threads.items():
            wanted += sum(times) - sum(before.threads.get(thread, (0.0, 0.0)))
        return max(wanted, now.cpu_seconds - before.cpu_seconds)

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self._tasks, self._main_times):
            if descriptor >= 0:
                os.close(descriptor)
        self._tasks = self._main_times = -1

    def _is_main_ready(self) -> bool:
        """Whether the main thread runs, or would with a core."""
        try:
            descriptor = os.open(f"{self._main}/stat", os.O_RDONLY, dir_fd=self._tasks)
            try:
                stat = os.read(descriptor, 200)
            finally:
                os.close(descriptor)
        except OSError:
            return False
        return stat.rpartition(b") ")[2].startswith(b"R")

    def _thread_times(self) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, float]] = {}
        if self._tasks < 0:
            return found
        with contextlib.suppress(OSError):
            for thread in os.listdir(self._tasks):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    descriptor = os.open(f"{thread}/schedstat", os.O_RDONLY, dir_fd=self._tasks)
                    try:
                        found[thread] = _times(os.read(descriptor, 100))
                    finally:
                        os.close(descriptor)
        return found


def _times(schedstat: bytes) -> tuple[float, float]:
    """Return processor time and run delay, in seconds."""
    fields = schedstat.split()
    return int(fields[0]) * _NANOSECOND, int(fields[1]) * _NANOSECOND


def _process_id(process_fd: int) -> int | None:
    try:
        for line in Path(f"/proc/self/fdinfo/{process_fd}").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Pid" and int(value) > 0:
                return int(value)
    except (OSError, ValueError):
        return None
    return None
