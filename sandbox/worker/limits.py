"""Resource limits of a session's process, on top of the zygote's own use."""

from __future__ import annotations

import os
import resource
from typing import Any

_MAPPED_EXTRA = 1 << 30  # libraries that blocks import later map files beside their data


def data_bytes_in_use(proc: int | None = None) -> int:
    """Return the private writable memory of this process (``VmData``), in bytes.

    Args:
        proc: Descriptor of ``/proc`` where the path is no longer accessible.
    """
    descriptor = os.open(
        "/proc/self/statm" if proc is None else "self/statm", os.O_RDONLY, dir_fd=proc
    )
    try:
        pages = os.read(descriptor, 200).split()
    finally:
        os.close(descriptor)
    return int(pages[5]) * resource.getpagesize()


def limit_resources(limits: dict[str, Any], data_bytes: int, *, count_threads: bool) -> None:
    """Set the limits irrevocably (hard and soft).

    Args:
        limits: `Limits` by field name.
        data_bytes: Memory used by the zygote's libraries, to which the session's limit is added.
        count_threads: Whether the kernel counts this session's threads separately from others';
            it does in a user namespace of the session's own.
    """
    memory = limits["memory_mb"] << 20
    bounds = {
        resource.RLIMIT_DATA: data_bytes + memory,
        resource.RLIMIT_AS: 2 * data_bytes + memory + _MAPPED_EXTRA,
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_FSIZE: limits["disk_mb"] << 20,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if count_threads:
        bounds[resource.RLIMIT_NPROC] = limits["threads"]
    for kind, bound in bounds.items():
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            bound = min(bound, hard)
        resource.setrlimit(kind, (bound, bound))
