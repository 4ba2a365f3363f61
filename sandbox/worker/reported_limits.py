"""Size of memory and disk as code is told: the session's limits, not the host's.

The filter refuses the calls that report the host's, as they also report its load and what its other
programs use; that would differ from run to run.
"""

from __future__ import annotations

import os
from typing import Any

_MEMORY_NAMES = ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES")
_LONGEST_NAME = 255


def report_limits(limits: dict[str, Any]) -> None:
    """Answer ``os.sysconf`` and ``os.statvfs`` from the limits, as far as they replace the host's.

    Args:
        limits: `Limits` by field name.
    """
    original = os.sysconf
    page = original("SC_PAGE_SIZE")
    memory_pages: int = (limits["memory_mb"] << 20) // page
    disk_pages: int = (limits["disk_mb"] << 20) // page
    numbers = {os.sysconf_names[name] for name in _MEMORY_NAMES if name in os.sysconf_names}

    def sysconf(name: str | int, /) -> int:
        """Return a setting of the system; for the memory, the session's limit."""
        asks_for_memory = name in _MEMORY_NAMES or name in numbers
        return memory_pages if asks_for_memory else original(name)

    def statvfs(path: Any, /) -> os.statvfs_result:  # noqa: ANN401
        """Return the session's disk limit for any file that exists."""
        os.stat(path)
        files = disk_pages
        whole = (page, page, disk_pages, disk_pages, disk_pages, files, files, files)
        return os.statvfs_result((*whole, os.ST_NOSUID, _LONGEST_NAME))

    os.sysconf = sysconf
    os.statvfs = os.fstatvfs = statvfs
