"""Disk use of a session without a private file system, and the session's own check of it.

There are two checks. The session itself checks every few milliseconds of its own processor time, so
that a loop gains no time from the load of the machine; but its code can prevent that. The disk
watchdog checks from outside, which no code can prevent.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import signal
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from time import process_time
from types import FrameType

from .places import BLOCK_PREFIX

_LONGEST_PATH = 1024  # below a session's folder; scanning deeper ones takes too long
_BLOCK_BYTES = 512
_FLAGRANT = 2  # times the bounds
_OWN_FOLDERS = 32  # scanned by a session; the watchdog, for which no block waits, scans all
_REST_FACTOR = 20  # a session's check takes a twentieth of the block's time,
_LONGEST_REST = 0.015  # unless this many processor seconds have passed since the last one


@dataclass(frozen=True)
class Bounds:
    """Disk limits of one session."""

    bytes: int
    files: int

    def is_flagrant(self, used: int) -> bool:
        """Whether a use of the disk is more than a write that was under way can explain."""
        return used > _FLAGRANT * self.bytes

    @classmethod
    def of_disk(cls, disk_mb: int) -> Bounds:
        """Return the bounds of ``Limits.disk_mb``; the number of files is that of such a tmpfs."""
        return cls(disk_mb << 20, 1024 + 64 * disk_mb)


class OwnDisk:
    """A session's check of its own disk use; created in the session after its limits are set.

    Args:
        folder: The session's folder.
        bounds: The session's disk limits.
    """

    def __init__(self, folder: str, bounds: Bounds) -> None:
        self._folder = folder
        self._bounds = bounds
        self._open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._next = 0.0  # processor seconds of this process

    def look(self, frame: FrameType | None) -> None:
        """Raise the error of a full disk in ``frame``'s block if it uses too much."""
        now = process_time()
        if now < self._next:
            return
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGXFSZ,))
        try:
            self._next = math.inf  # the timer continues: no check may start within another
            is_over = self._is_over()
        finally:
            ended = process_time()
            self._next = ended + min(_REST_FACTOR * (ended - now), _LONGEST_REST)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if is_over:
            _refuse_more(signal.SIGXFSZ, frame)

    def _is_over(self) -> bool:
        bound = self._bounds.bytes
        size = _named_bytes(self._folder, self._bounds, most_folders=_OWN_FOLDERS, most_bytes=bound)
        if size <= bound:
            size += sum(_nameless_files(map(_own_file, range(self._open_files))).values())
        return size > bound


def handle_disk_watchdog() -> None:
    """Turn the watchdog's signal, in a session, into an exception in the running block."""
    signal.signal(signal.SIGXFSZ, _refuse_more)


def _refuse_more(_: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith(BLOCK_PREFIX):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        frame = frame.f_back


def bytes_used(folder: str, process_id: int, bounds: Bounds) -> int:
    """Return a session's use of the disk, in its folder and in unlinked files."""
    return _named_bytes(folder, bounds) + _hidden_bytes(folder, process_id, bounds)


def _named_bytes(
    folder: str, bounds: Bounds, *, most_folders: float = math.inf, most_bytes: float = math.inf
) -> int:
    """Return the bytes in a folder; above the bound where files are too many or too deep.

    Args:
        folder: A session's folder.
        bounds: Its disk limits; counting ends at a multiple of the number of files.
        most_folders: Number of folders after which counting ends.
        most_bytes: Use above which counting ends.
    """
    too_much = bounds.bytes + 1
    size = files = 0
    waiting = [folder]
    while waiting and most_folders > 0:
        most_folders -= 1
        current = waiting.pop()
        if len(current) - len(folder) > _LONGEST_PATH:
            return max(size, too_much)
        try:
            with scan(current, folder) as entries:
                for entry in entries:
                    files += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{current}/{entry.name}")
                    if files > _FLAGRANT * bounds.files or size > most_bytes:
                        return max(size, too_much)
        except PermissionError:  # closed by its owner: its content counts as too much
            return max(size, too_much)
        except OSError:
            continue  # it was removed meanwhile
    return max(size, too_much) if files > bounds.files else size


@contextlib.contextmanager
def scan(path: str, folder: str) -> Generator[Iterator[os.DirEntry[str]]]:
    """Scan a path within ``folder``, or nothing where a link has just replaced a part of it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with contextlib.suppress(PermissionError):  # the session's own check, which reads no links
            real = os.readlink(f"/proc/self/fd/{descriptor}")
            if real != folder and not real.startswith(f"{folder}/"):
                raise FileNotFoundError(path)
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)


def _hidden_bytes(folder: str, process_id: int, bounds: Bounds) -> int:
    """Return the bytes of a process's unlinked files that still use disk: open or mapped."""
    try:
        with os.scandir(f"/proc/{process_id}/fd") as entries:
            opened = _nameless_files(map(_file_of, entries))
        with open(f"/proc/{process_id}/maps", encoding="utf-8", errors="replace") as lines:
            mapped = {int(line.split()[4]) for line in lines if _is_nameless(line, folder)}
    except OSError:
        return 0
    unseen = len(mapped - opened.keys())  # closed as well: their size is unknown
    return sum(opened.values()) + unseen * (bounds.bytes // 2)


def _nameless_files(found: Iterator[os.stat_result | None]) -> dict[int, int]:
    """Return the bytes of each unlinked regular file by inode number."""
    return {
        file.st_ino: file.st_blocks * _BLOCK_BYTES
        for file in found
        if file is not None and stat.S_ISREG(file.st_mode) and file.st_nlink == 0
    }


def _file_of(entry: os.DirEntry[str]) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return entry.stat()
    return None


def _own_file(descriptor: int) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return os.fstat(descriptor)
    return None


def _is_nameless(line: str, folder: str) -> bool:
    return line.endswith(" (deleted)\n") and f"{folder}/" in line
