"""Marks of what a process leaves on the machine, so that it can be removed after its death."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


def own_mark() -> str:
    """Return the mark of this process: boot, pid namespace, process id and start time."""
    process_id = str(os.getpid())
    return f"{_boot()} {_pid_namespace()} {process_id} {_start_time(process_id)}"


def is_stale(mark: str) -> bool:
    """Whether the process named by a mark is certainly dead."""
    boot, _, rest = mark.partition(" ")
    if boot != _boot():
        return bool(boot)
    namespace, _, process = rest.partition(" ")
    if namespace != _pid_namespace():
        return False  # its process ids are unknown here
    process_id, _, started = process.partition(" ")
    return started != _start_time(process_id)


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _start_time(process_id: str) -> str:
    """Return the clock ticks from boot to the start of a process; empty where there is none."""
    try:
        words = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return words[19]
