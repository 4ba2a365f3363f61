"""Return of freed memory to the operating system.

glibc retains memory that a thread has freed for that thread. Images pass through many threads here,
so that a vector environment would retain several times what its members need.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Return freed memory to the system, in about 4 ms; no effect without ``malloc_trim``."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
