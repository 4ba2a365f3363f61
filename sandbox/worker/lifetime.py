"""What a process of the worker outlives, and which descriptors it keeps."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

from . import kernel


def die_with_trainer() -> None:
    """End with the process that executed this one; a container follows the control socket."""
    if os.getppid():
        kernel.die_with_parent(signal.SIGKILL)


def die_first(proc: int | None) -> None:
    """Let the kernel kill this session before zygote or trainer when memory runs out."""
    path = "/proc/self/oom_score_adj" if proc is None else "self/oom_score_adj"
    with contextlib.suppress(OSError):  # some containers forbid it
        descriptor = os.open(path, os.O_WRONLY, dir_fd=proc)
        try:
            os.write(descriptor, b"1000")
        finally:
            os.close(descriptor)


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor that is not in ``kept``."""
    start = 0
    for descriptor in sorted(kept):
        if descriptor > start:  # an empty range would close them all (CPython passes -1 on)
            os.closerange(start, descriptor)
        start = max(start, descriptor + 1)
    os.closerange(start, 1 << 16)
