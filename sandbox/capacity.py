"""Resources available to this process on its machine: cores, memory, file descriptors."""

from __future__ import annotations

import contextlib
import math
import os
import resource
from pathlib import Path

from .types import SandboxError

_CGROUP = Path("/sys/fs/cgroup")
_DESCRIPTORS_A_SESSION = 7  # five that stay, two while it starts
_DESCRIPTORS_OF_OTHERS = 256


def turns_at_once(memory_mb: int) -> int:
    """Return the number of turns that may run at once: one per core, as far as memory suffices."""
    return max(1, min(core_count(), available_memory_mb() // memory_mb))


def core_count(root: Path = _CGROUP) -> int:
    """Return the number of available cores: the CPU affinity, within the cgroup's quota.

    ``CODEDANCE_CORES`` (``codedance run --workers``) limits it further.
    """
    cores = len(os.sched_getaffinity(0))
    wanted = os.environ.get("CODEDANCE_CORES", "")
    if wanted.isdecimal() and int(wanted) > 0:
        cores = min(cores, int(wanted))
    quota = _quota(root / "cpu.max") or _quota(
        root / "cpu/cpu.cfs_quota_us", root / "cpu/cpu.cfs_period_us"
    )
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def available_memory_mb(root: Path = _CGROUP) -> int:
    """Return the memory available to this process, on its machine and in its cgroup, in MiB."""
    found = [_available_on_machine()]
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            bound = int((root / most).read_text()) - int((root / used).read_text())
            found.append(max(0, bound) >> 20)
    return min(found)


def allow_descriptors(sessions: int) -> None:
    """Raise this process's soft limit on open files if ``sessions`` need it.

    Raises:
        SandboxError: The sessions need more open files than the hard limit allows.
    """
    needed = sessions * _DESCRIPTORS_A_SESSION + _DESCRIPTORS_OF_OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise SandboxError(
            f"{sessions} sessions at once need {needed} open files, this process may have {hard}; "
            "close sessions, or raise the bound (ulimit -Hn, or LimitNOFILE of the service)"
        )
    wanted = max(needed, 2 * soft)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _quota(*files: Path) -> float | None:
    """Return the number of cores that a quota allows; None without a quota."""
    with contextlib.suppress(OSError, ValueError):
        words = [word for file in files for word in file.read_text().split()]
        quota, period = int(words[0]), int(words[1])
        return quota / period if quota > 0 else None
    return None


def _available_on_machine() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 1 << 30
