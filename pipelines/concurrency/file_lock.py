"""A file lock that lasts as long as its process: the kernel frees it, even after a kill."""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def try_lock(path: Path) -> Generator[bool]:
    """Hold the lock of a file, which is created if missing, while the context lasts.

    Yields:
        True where the lock was acquired, False where another process holds it.
    """
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
