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

from ..types import Limits

_KIB = 1 << 10
_MIB = 1 << 20
_SLACK_BYTES = 32 * _MIB  # memory of the libraries that is first touched in a session
_FASTEST_BYTES = 8 << 30  # that code can fill per second
_SHORTEST_SECONDS = 0.01
_LONGEST_SECONDS = 0.5
_LEAST_CPU_SECONDS = 0.005  # after which a block that has ended is checked
_LONGEST_STATUS = 4096


class MemoryWatch:
    """Limit on the memory that a session holds in addition to its libraries.

    Args:
        process_id: Process on this machine; None where unknown, so that nothing is checked.
        limits: Limits of the session.
    """

    def __init__(self, process_id: int | None, limits: Limits) -> None:
        self._status = -1
        self._most_bytes = limits.memory_mb * _MIB + _SLACK_BYTES
        self._unseen_seconds = 0.0
        self._next_look = 0.0
        self.error = f"MemoryError: more than {limits.memory_mb} MB"
        if process_id is not None:
            with contextlib.suppress(OSError):
                self._status = os.open(f"/proc/{process_id}/status", os.O_RDONLY)
        self._libraries = self._held() or 0

    @property
    def seconds_to_look(self) -> float:
        """Seconds until `is_over` should be asked."""
        return max(0.0, self._next_look - time.monotonic())

    def begin(self) -> None:
        """Note that a block starts."""
        self._plan(self._most_bytes if self._status >= 0 else None)

    def is_over(self) -> bool:
        """Whether the session holds more than its limit; looks only when it is due."""
        return self._next_look <= time.monotonic() and self._look()

    def is_over_after(self, cpu_seconds: float) -> bool:
        """Whether the session exceeds its limit after a block that took ``cpu_seconds``.

        Short blocks are checked together: in less than 5 ms they fill little.
        """
        self._unseen_seconds += cpu_seconds
        return self._unseen_seconds >= _LEAST_CPU_SECONDS and self._look()

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self._status >= 0:
            os.close(self._status)
            self._status = -1

    def _look(self) -> bool:
        self._unseen_seconds = 0.0
        held = self._held()
        left = None if held is None else self._libraries + self._most_bytes - held
        self._plan(left)
        return left is not None and left < 0

    def _plan(self, left: int | None) -> None:
        """Set the time of the next look: code needs at least this long to fill what is left."""
        seconds = _LONGEST_SECONDS if left is None else left / _FASTEST_BYTES
        seconds = min(max(seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)
        self._next_look = time.monotonic() + seconds

    def _held(self) -> int | None:
        """Return the private memory of the process, swapped out or not; None when unknown."""
        if self._status < 0:
            return None
        try:
            text = os.pread(self._status, _LONGEST_STATUS, 0)
        except OSError:  # it has ended
            return None
        return held_bytes(text)


def held_bytes(status: bytes) -> int | None:
    """Return the private bytes that ``/proc/PID/status`` reports; None after the process ended."""
    found = 0
    for name in (b"RssAnon:", b"VmSwap:", b"VmPTE:"):
        start = status.find(b"\n" + name)
        if start < 0:
            return None
        found += int(status[start + len(name) + 1 :].split(None, 1)[0]) * _KIB
    return found
