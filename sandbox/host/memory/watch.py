"""Resident memory of a session, checked from outside while a block runs.

The kernel's own limit (RLIMIT_DATA) counts private memory that can be written. It refuses the
next allocation, so that an ordinary block gets a `MemoryError` with its line, but it does not count
pages that code fills and then makes read-only. The resident memory counts those as well; only the
host can limit it, by looking. The less memory is left, the sooner it looks again.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from ...types import Limits
from .cgroup import SessionGroups

_KIB = 1 << 10
_MIB = 1 << 20
_SLACK_BYTES = 32 * _MIB  # memory of the libraries that is first touched in a session
_FASTEST_BYTES = 8 << 30  # that code can fill per second
_SHORTEST_SECONDS = 0.01
_LONGEST_SECONDS = 0.5
_GROUP_SECONDS = 0.05  # of a block, after which its session gets a cgroup of its own
_KERNEL_BYTES = 32 * _MIB  # that a cgroup counts: stacks, page tables, buffers
_LEAST_CPU_SECONDS = 0.005  # after which a block that has ended is checked
_LONGEST_STATUS = 4096


class MemoryWatch:
    """Limit on the memory that a session holds in addition to its libraries.

    Args:
        process_id: Process on this machine; None where unknown, so that nothing is checked.
        limits: Limits of the session.
        groups: Memory cgroups of the sandbox's sessions; None for none.
    """

    def __init__(
        self, process_id: int | None, limits: Limits, groups: SessionGroups | None = None
    ) -> None:
        self._process_id = process_id
        self._groups = groups if process_id is not None else None
        self._group: Path | None = None
        self._disk_bytes = limits.disk_mb * _MIB  # of a tmpfs, which a cgroup counts as memory
        self._status = -1
        self._most_bytes = limits.memory_mb * _MIB + _SLACK_BYTES
        self._unseen_seconds = 0.0
        self._next_look = 0.0
        self.error = f"MemoryError: more than {limits.memory_mb} MB"
        if process_id is not None:
            with contextlib.suppress(OSError):
                self._status = os.open(f"/proc/{process_id}/status", os.O_RDONLY)
        self._libraries = self._held() or 0
        self._first_seconds = _seconds_to_fill(self._most_bytes if self._status >= 0 else None)

    @property
    def seconds_to_look(self) -> float:
        """Seconds until `is_over` should be asked."""
        return max(0.0, self._next_look - time.monotonic())

    def begin(self) -> None:
        """Note that a block starts."""
        seconds = self._first_seconds
        if self._groups is not None and self._group is None:
            seconds = min(seconds, _GROUP_SECONDS)
        self._next_look = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Whether the session holds more than its limit; looks only when it is due."""
        if self._next_look > time.monotonic():
            return False
        self._enter_group()
        return self._look()

    def is_over_after(self, cpu_seconds: float) -> bool:
        """Whether the session exceeds its limit after a block that took ``cpu_seconds``.

        Short blocks are checked together: in less than 5 ms they fill little.
        """
        self._unseen_seconds += cpu_seconds
        return self._unseen_seconds >= _LEAST_CPU_SECONDS and self._look()

    def was_killed(self) -> bool:
        """Whether the kernel killed the process because of its cgroup's limit."""
        if self._groups is None or self._group is None:
            return False
        return self._groups.has_killed(self._group)

    def close(self) -> None:
        """Release descriptor and cgroup; a second call does nothing."""
        if self._groups is not None and self._group is not None:
            self._groups.remove(self._group)
        self._groups = None
        if self._status >= 0:
            os.close(self._status)
            self._status = -1

    def _enter_group(self) -> None:
        if self._groups is None or self._process_id is None or self._group is not None:
            return
        if self._held() is None:  # it has ended: its process id may be another's
            return
        most = self._libraries + self._most_bytes + self._disk_bytes + _KERNEL_BYTES
        self._group = self._groups.enclose(self._process_id, most)
        if self._group is None:
            self._groups = None

    def _look(self) -> bool:
        self._unseen_seconds = 0.0
        held = self._held()
        left = None if held is None else self._libraries + self._most_bytes - held
        self._plan(left)
        return left is not None and left < 0

    def _plan(self, left: int | None) -> None:
        """Set the time of the next look."""
        self._next_look = time.monotonic() + _seconds_to_fill(left)

    def _held(self) -> int | None:
        """Return the private memory of the process, swapped out or not; None when unknown."""
        if self._status < 0:
            return None
        try:
            text = os.pread(self._status, _LONGEST_STATUS, 0)
        except OSError:  # it has ended
            return None
        return held_bytes(text)


def _seconds_to_fill(left: int | None) -> float:
    """Return the seconds that code needs at least to fill what is left; None for unknown."""
    seconds = _LONGEST_SECONDS if left is None else left / _FASTEST_BYTES
    return min(max(seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)


def held_bytes(status: bytes) -> int | None:
    """Return the private bytes that ``/proc/PID/status`` reports; None after the process ended."""
    found = 0
    for name in (b"RssAnon:", b"VmSwap:", b"VmPTE:"):
        start = status.find(b"\n" + name)
        if start < 0:
            return None
        found += int(status[start + len(name) + 1 :].split(None, 1)[0]) * _KIB
    return found
