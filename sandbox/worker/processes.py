"""Shares of the processes and threads that the user may have: sessions cannot use up the trainer's.

The kernel counts the threads of every session for the trainer's user too, and since Linux 5.14
applies to each user namespace the limit that its creator had. So the namespace of the zygote gets
three quarters of what was free, and those of the sessions together a half: threads of sessions
leave room for further sessions, and both for the trainer.
"""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass

_CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/pids")


@dataclass(frozen=True, slots=True)
class Shares:
    """Maximum numbers of processes and threads; None without a limit.

    Attributes:
        user: Of this user, those that exist included.
        sessions: Of the zygote and all sessions.
    """

    user: int | None = None
    sessions: int | None = None


def find_shares(cgroups: tuple[str, ...] = _CGROUPS) -> Shares:
    """Return the shares of what is free now, by ``RLIMIT_NPROC`` and the cgroup's ``pids.max``.

    Args:
        cgroups: Folders of the cgroup.
    """
    used = _threads_of_user()
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    is_root = os.geteuid() == 0  # not subject to the limit, and its sessions are another user
    free = [most - used] if most != resource.RLIM_INFINITY and not is_root else []
    for folder in cgroups:
        with contextlib.suppress(OSError, ValueError):
            free.append(_number(f"{folder}/pids.max") - _number(f"{folder}/pids.current"))
    if not free:
        return Shares()
    room = max(0, min(free))
    return Shares(None if is_root else used + room * 3 // 4, room // 2)


def limit_processes(most: int | None) -> None:
    """Limit this process, and the user namespace that it creates next, to ``most`` processes."""
    if most is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, hard))


def _threads_of_user() -> int:
    """Return the number of this user's threads, as far as ``/proc`` shows them."""
    count, user = 0, os.geteuid()
    with contextlib.suppress(OSError), os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    found = os.stat(f"/proc/{entry.name}/task")
                    count += found.st_nlink - 2 if found.st_uid == user else 0
    return count


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())
