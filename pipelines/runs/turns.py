"""One training at a time per host, whether a command or a Prefect worker started it.

A training holds a file lock of its host. The kernel frees it when the process ends for any reason
(kill -9, out of memory), so that no process waits for a training that has ended.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

LOOK_SECONDS = 0.2
FOLDER = "CODEDANCE_LOCKS"
"""Variable with a folder for locks that several users, or containers of one host, share."""
AT_ONCE = "CODEDANCE_TRAININGS"
"""Variable with the number of concurrent trainings per host."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_KERNEL_LOCKS = Path("/proc/locks")


@contextmanager
def training_turn(
    stage: str, *, fallback: Path, say: Callable[[str], None], check: Callable[[], None]
) -> Generator[None]:
    """Hold one of the host's training slots while the context lasts.

    Args:
        stage: Stage to run, for the message.
        fallback: Folder of the locks if the host's folder for them cannot be used.
        say: Called once with a message if all slots are taken.
        check: Called while waiting; an exception that it raises ends the wait.

    Raises:
        ValueError: ``CODEDANCE_TRAININGS`` is not a number of trainings.
    """
    count, has_said = trainings_at_once(), False
    files = [lock_folder(fallback) / f"training-{_host()}-{n}.lock" for n in range(count)]
    while (lock := _take_any(files)) is None:
        if not has_said:
            say(f"{stage}: waiting for its turn, {_explain(files)}")
            has_said = True
        check()
        time.sleep(LOOK_SECONDS)
    try:
        yield
    finally:
        os.close(lock)


def trainings_at_once() -> int:
    """Return the number of concurrent trainings per host: ``CODEDANCE_TRAININGS``, 1 by default.

    Raises:
        ValueError: The variable is not a positive integer.
    """
    value = os.environ.get(AT_ONCE) or "1"
    if not re.fullmatch(r"0*[1-9][0-9]{0,3}", value):
        raise ValueError(f"{AT_ONCE} must be a positive number of trainings, not {value!r}")
    return int(value)


def lock_folder(fallback: Path) -> Path:
    """Return the folder of this host's locks, which is created if missing.

    Args:
        fallback: Folder to use where the one in the system's temporary folder is not this user's.
    """
    if named := os.environ.get(FOLDER):
        folder = Path(named).expanduser().absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    folder = Path(tempfile.gettempdir()) / f"codedance-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        found = None
    is_ours = found is not None and stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if is_ours and os.access(folder, os.W_OK):
        return folder
    fallback.mkdir(parents=True, exist_ok=True)
    return fallback


def _host() -> str:
    """Return a name of this machine since its last boot, the same in all of its containers."""
    if _BOOT_ID.is_file():
        return _BOOT_ID.read_text(encoding="ascii").strip()[:8]
    return socket.gethostname()


def _take_any(files: list[Path]) -> int | None:
    """Acquire a free lock and return its descriptor; None where every slot is taken."""
    for path in files:
        lock = _open(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return lock
    return None


def _open(path: Path) -> int:
    """Open a lock file, which another user may own; writable if possible, as NFS requires."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _explain(files: list[Path]) -> str:
    """Return the reason of the wait, and how to allow more trainings."""
    at_once = "one training" if len(files) == 1 else f"{len(files)} trainings"
    holders = [holder for path in files if (holder := _holder(path))]
    stopped = [holder for holder in holders if _is_stopped(holder)]
    shown = [f"process {one}{', stopped' if one in stopped else ''}" for one in holders]
    who = f" (running: {', '.join(shown)})" if shown else ""
    more = f"{at_once} at a time on this host{who}; {AT_ONCE}={len(files) + 1} allows one more"
    if not stopped:
        return more
    ids = " ".join(map(str, stopped))
    return f"{more}; `kill -CONT {ids}` continues what is stopped, `kill -9 {ids}` ends it"


def _is_stopped(pid: int) -> bool:
    """Return whether a process is stopped, as by Ctrl-Z: it keeps its slot, and its memory."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended, or this system has no such file
        return False
    return content.rpartition(")")[2].split()[0] in ("T", "t")


def _holder(path: Path) -> int | None:
    """Return the id of the process that holds a lock; None where the kernel does not report it."""
    if not _KERNEL_LOCKS.is_file():
        return None
    inode = str(path.stat().st_ino)
    for line in _KERNEL_LOCKS.read_text(encoding="ascii", errors="replace").splitlines():
        fields = line.split()
        is_held = len(fields) == 8 and fields[1] == "FLOCK"  # a waiting one has an extra arrow
        if is_held and fields[5].rpartition(":")[2] == inode and int(fields[4]) > 0:
            return int(fields[4])
    return None
