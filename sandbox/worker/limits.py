"""Resource limits of a session's process, on top of the zygote's own use."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from typing import Any

_MAPPED_EXTRA = 640 << 20  # libraries that blocks import later map files beside their data
_STACK_BYTES = 8 << 20  # what most systems set as the soft limit, without a hard one


@dataclass(frozen=True)
class MemoryInUse:
    """Memory of the zygote, to which a session's limit is added.

    Attributes:
        mapped: Its address space (``VmSize``), in bytes.
        data: Its private writable memory (``VmData``), in bytes.
    """

    mapped: int = 0
    data: int = 0


def memory_in_use(proc: int | None = None) -> MemoryInUse:
    """Return the memory of this process.

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
    size = resource.getpagesize()
    return MemoryInUse(mapped=int(pages[0]) * size, data=int(pages[5]) * size)


def limit_resources(limits: dict[str, Any], used: MemoryInUse, *, count_threads: bool) -> None:
    """Set the limits irrevocably (hard and soft).

    RLIMIT_DATA counts private memory that can be written, so pages that were filled and then made
    read-only evade it; the host limits those by the resident memory (`host.memory.watch`), and
    RLIMIT_AS bounds what can be filled until it looks.

    Args:
        limits: `Limits` by field name.
        used: Memory used by the zygote's libraries, to which the session's limit is added.
        count_threads: Whether the kernel counts this session's threads separately from others';
            it does in a user namespace of the session's own.
    """
    memory = limits["memory_mb"] << 20
    bounds = {
        resource.RLIMIT_DATA: used.data + memory,
        resource.RLIMIT_AS: used.mapped + memory + _MAPPED_EXTRA,
        resource.RLIMIT_STACK: _STACK_BYTES,
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
