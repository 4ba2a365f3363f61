"""Freed memory, given back to the machine.

glibc keeps what a thread has freed for that thread. Pictures go through many threads here, so that
a vector environment would hold several times what its members need.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Return freed memory back, in about 4 ms; does nothing where the C library cannot."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
