"""Append-only files of JSON lines in a run's folder; lines that a full disk refuses wait."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..store.connection.errors import is_disk_full

Line = dict[str, Any]
MOST_WAITING = 200_000
"""Maximum number of lines kept in memory; beyond it the oldest are dropped."""


class LineWriter:
    """Appends lines to files; on a full disk they wait for space in memory, and training does not.

    Safe to share between threads.
    """

    def __init__(self) -> None:
        self.guard: Callable[[], None] | None = None
        """Called before a line is accepted; its errors are raised."""
        self._waiting = deque[tuple[Path, Line]](maxlen=MOST_WAITING)
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """Number of lines that wait for space."""
        return len(self._waiting)

    def append(self, path: Path, line: Mapping[str, Any]) -> None:
        """Append a line after the waiting ones; the file's folder is created if it is missing."""
        if self.guard is not None:
            self.guard()
        with self._lock:
            self._waiting.append((path, dict(line)))
        self.flush()

    def flush(self) -> None:
        """Write the waiting lines as far as there is space.

        Raises:
            OSError: A file cannot be written for another reason, as in a read-only folder.
        """
        try:
            self.complete()
        except OSError as error:
            if not is_disk_full(error):
                raise

    def complete(self) -> None:
        """Write all waiting lines.

        Raises:
            OSError: A file cannot be written; the lines wait on.
        """
        with self._lock:
            while self._waiting:
                append_line(*self._waiting[0])
                self._waiting.popleft()


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line, on a new line even if a kill or a full disk cut the last one short.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell() and file.seek(-1, 2) >= 0 and file.read(1) != b"\n":
            file.write(b"\n")
        file.write((json.dumps(line) + "\n").encode())


def read_lines(path: Path) -> list[Line]:
    """Return the whole lines of a file; none where there is no file."""
    return LineReader(path).read()


class LineReader:
    """Reads the lines that were appended to a file since the last call.

    Attributes:
        offset: Number of bytes that were read.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset = offset

    def read(self, end: int | None = None) -> list[Line]:
        """Return the new lines up to a position, without those that are no JSON object."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self.offset)
            content = file.read() if end is None else file.read(max(0, end - self.offset))
        whole = content[: content.rfind(b"\n") + 1]
        self.offset += len(whole)
        found: list[Any] = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict)]
