"""A file of lines that only grows; what a full disk refuses waits in memory for room."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

MOST_WAITING = 200_000
"""Lines kept in memory at most; past that the oldest are given up."""


class LineFile:
    """Appends whole lines: a line that does not fit is taken back, and written later, in order.

    Args:
        path: The file, made if it is missing; only its owner may read it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self._waiting: deque[bytes] = deque()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    @property
    def waiting(self) -> int:
        """How many lines wait for room."""
        return len(self._waiting)

    def fileno(self) -> int:
        """Return the descriptor, for a lock."""
        return self._descriptor

    def append(self, line: bytes) -> bool:
        """Write a line behind those that wait; False where it has to wait too."""
        self._waiting.append(line)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self.lost += 1
        return self.flush()

    def flush(self) -> bool:
        """Write what waits; False where there still is no room."""
        while self._waiting:
            if not self._write(self._waiting[0]):
                return False
            self._waiting.popleft()
        return True

    def close(self) -> None:
        """Write what can be written, and let go of the file; the rest is lost, and counted."""
        self.flush()
        self.lost += len(self._waiting)
        self._waiting.clear()
        os.close(self._descriptor)

    def _write(self, line: bytes) -> bool:
        start = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
        except OSError:
            return False
        if written < len(line):
            os.ftruncate(self._descriptor, start)
        return written == len(line)
