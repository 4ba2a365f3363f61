"""Keeps the folders of sessions that have no file system of their own: bounds them, clears them.

Without namespaces a session writes into a folder on a file system that others share, and no quota
of the kernel's holds it. So a process beside the zygote looks at what each running session has
there, some fifty times a second. One over its limit gets SIGXFSZ, which its block meets as ``No
space left on device``; one that stays over is killed. In between a session can go over the limit
by what it writes in a fiftieth of a second.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import stat
import sys
import time
from dataclasses import dataclass
from types import FrameType

_INTERVAL_SECONDS = 0.02
_REST_FACTOR = 20  # looking takes at most a twentieth of one core
_GRACE_SECONDS = 0.5  # from the signal that is an exception to the one that is the end
_BLOCK_BYTES = 512


@dataclass(frozen=True)
class Bounds:
    """What one session may have on disk."""

    bytes: int
    files: int

    @classmethod
    def of_disk(cls, disk_mb: int) -> Bounds:
        """Give the bounds of ``Limits.disk_mb``, the number of files as a tmpfs of that size."""
        return cls(disk_mb << 20, 1024 + 64 * disk_mb)


class Janitor:
    """Looks after the folders in ``scratch``, each named by its session's process id.

    Args:
        scratch: Holds the folders.
        bounds: Of each; None where nothing is held back.
    """

    def __init__(self, scratch: str, bounds: Bounds | None) -> None:
        self._scratch = scratch
        self._bounds = bounds
        self._seen: dict[int, float] = {}  # processor seconds of each session when last looked at
        self._warned: dict[int, float] = {}

    def keep(self, lifeline: int) -> None:
        """Look after them until ``lifeline`` is closed and every session is gone."""
        is_ending = False
        while True:
            started = time.monotonic()
            living = [name for name in os.listdir(self._scratch) if self._visit(name)]
            if is_ending and not living:
                clear(self._scratch)
                return
            rest = max(_INTERVAL_SECONDS, _REST_FACTOR * (time.monotonic() - started))
            if is_ending:
                time.sleep(_INTERVAL_SECONDS)
            else:
                is_ending = bool(select.select([lifeline], [], [], rest)[0])

    def _visit(self, name: str) -> bool:
        """Look at one folder; whether its session lives."""
        folder = os.path.join(self._scratch, name)
        if not name.isdigit():
            return False
        process_id = int(name)
        try:
            used = time.clock_gettime((~process_id << 3) | 2)  # as clock_getcpuclockid makes it
        except OSError:
            self._seen.pop(process_id, None)
            self._warned.pop(process_id, None)
            clear(folder)
            return False
        has_run = used != self._seen.get(process_id)
        self._seen[process_id] = used
        if self._bounds is not None and (has_run or process_id in self._warned):
            self._hold(process_id, _is_over(folder, process_id, self._bounds))
        return True

    def _hold(self, process_id: int, is_over: bool) -> None:
        if not is_over:
            self._warned.pop(process_id, None)
            return
        now = time.monotonic()
        since = self._warned.setdefault(process_id, now)
        number = signal.SIGKILL if now - since > _GRACE_SECONDS else signal.SIGXFSZ
        with contextlib.suppress(OSError):
            os.kill(process_id, number)


def heed_janitor() -> None:
    """In a session: let the janitor's signal be an exception of the block that runs."""
    signal.signal(signal.SIGXFSZ, _refuse_more)


def clear(folder: str) -> None:
    """Remove a folder, however deep it is and whatever its modes are."""
    waiting = [folder]
    number = 0
    while waiting:
        current = waiting.pop()
        with contextlib.suppress(OSError):
            os.chmod(current, 0o700)
        with contextlib.suppress(OSError), os.scandir(current) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
                    continue
                number += 1
                flat = f"{folder}.{number}"  # beside it: no path grows past the system's bound
                with contextlib.suppress(OSError):
                    os.rename(entry.path, flat)
                    waiting.append(flat)
        with contextlib.suppress(OSError):
            os.rmdir(current)


def _refuse_more(_: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<block "):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        frame = frame.f_back


def _is_over(folder: str, process_id: int, bounds: Bounds) -> bool:
    """Whether a session has more than its bounds, in its folder or in files without a name."""
    size = files = 0
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    files += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    if files > bounds.files or size > bounds.bytes:
                        return True
        except PermissionError:
            with contextlib.suppress(OSError):
                os.chmod(current, 0o700)  # looked at the next time
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return True
    return size + _nameless_bytes(folder, process_id, bounds) > bounds.bytes


def _nameless_bytes(folder: str, process_id: int, bounds: Bounds) -> int:
    """Weigh the files that were unlinked while open, or mapped, and so still take room."""
    opened: dict[int, int] = {}
    try:
        with os.scandir(f"/proc/{process_id}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat()
                    if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                        opened[found.st_ino] = found.st_blocks * _BLOCK_BYTES
        with open(f"/proc/{process_id}/maps", encoding="utf-8", errors="replace") as lines:
            mapped = {int(line.split()[4]) for line in lines if _is_nameless(line, folder)}
    except OSError:
        return 0
    unseen = len(mapped - opened.keys())  # closed as well: no one can tell their size
    return sum(opened.values()) + unseen * (bounds.bytes // 2)


def _is_nameless(line: str, folder: str) -> bool:
    return line.endswith(" (deleted)\n") and f"{folder}/" in line


def start(scratch: str, bounds: Bounds | None) -> int:
    """Fork the janitor; it ends after the returned descriptor is closed everywhere."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        return writing
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.closerange(3, reading)
        os.closerange(reading + 1, 1 << 16)
        sys.argv[:] = [""]
        Janitor(scratch, bounds).keep(reading)
    finally:
        os._exit(0)
