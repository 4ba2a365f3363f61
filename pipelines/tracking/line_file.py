"""An append-only file of lines; lines that a full disk refuses wait in memory."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

MOST_WAITING = 200_000
"""Maximum number of lines kept in memory; beyond it the oldest are dropped."""


class LineFile:
    """Appends whole lines: a line that does not fit is truncated and written later, in order.

    Args:
        path: The file, created if it is missing; readable by its owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self._waiting: deque[bytes] = deque()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    @property
    def waiting(self) -> int:
        """Number of lines that wait for disk space."""
        return len(self._waiting)

    def fileno(self) -> int:
        """Return the file descriptor, for locking."""
        return self._descriptor

    def append(self, line: bytes) -> bool:
        """Write a line after the waiting ones; return False if it has to wait too."""
        self._waiting.append(line)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self.lost += 1
        return self.flush()

    def flush(self) -> bool:
        """Write the waiting lines; return False if there still is no space."""
        while self._waiting:
            if not self._write(self._waiting[0]):
                return False
            self._waiting.popleft()
        return True

    def close(self) -> None:
        """Write the waiting lines and close the file; count those that are lost."""
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
