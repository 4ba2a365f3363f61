"""Watchdog of the folders of sessions without a private file system: limits and removes them.

Without namespaces a session writes into a folder on a shared file system without a kernel quota. A
process beside the zygote therefore measures the disk use of each running session, about fifty
times per second. A session over its limit gets SIGXFSZ, which its block receives as ``No space left
on device``; one that stays over, or grows beyond twice its limit after the signal, is killed. A
session that prevents its own check (`disk_use.OwnDisk`) can exceed the limit by what it writes
until this process gets a core and has looked twice: a tenth of a second, and a fiftieth.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import sys
import time

from .disk_use import Bounds, bytes_used, scan

_INTERVAL_SECONDS = 0.02
_REST_FACTOR = 20  # checks take a twentieth of one core, and more only under attack:
_LONGEST_REST_SECONDS = 0.1
_GRACE_SECONDS = 0.25  # from the signal that raises an exception to the one that kills
_STEPS_A_ROUND = 500  # of removal: large leftovers must not delay the checks of others


class DiskWatchdog:
    """Watchdog of the folders in ``scratch``, whose names begin with their session's process id.

    Args:
        scratch: Parent of the folders.
        bounds: Disk limits of each session; None for no limits.
    """

    def __init__(self, scratch: str, bounds: Bounds | None) -> None:
        self._scratch = scratch
        self._bounds = bounds
        self._seen: dict[int, float] = {}  # processor seconds of each session at the last check
        self._warned: dict[int, tuple[float, int]] = {}  # when first, and the bytes at last
        self._rubbish = Rubbish(scratch)

    def keep(self, lifeline: int) -> None:
        """Check and clear the folders until ``lifeline`` is closed and every session has ended."""
        is_ending = False
        while True:
            started = time.thread_time()  # not wall-clock time: waiting for a core is no work
            living = [name for name in os.listdir(self._scratch) if self._visit(name)]
            is_clear = self._rubbish.clear(_STEPS_A_ROUND)
            if is_ending and is_clear and not living:
                with contextlib.suppress(OSError):
                    os.rmdir(self._scratch)
                return
            took = time.thread_time() - started
            longest = _INTERVAL_SECONDS if self._warned else _LONGEST_REST_SECONDS
            rest = min(max(_INTERVAL_SECONDS, _REST_FACTOR * took), longest)
            if not is_ending:
                is_ending = bool(select.select([lifeline], [], [], rest)[0])
            elif is_clear:
                time.sleep(_INTERVAL_SECONDS)

    def _visit(self, name: str) -> bool:
        """Check one folder; return whether its session is alive."""
        folder = os.path.join(self._scratch, name)
        first = name.partition("-")[0]
        if not first.isdigit():
            if not name.startswith("gone-"):
                self._rubbish.add(folder)
            return False
        process_id = int(first)
        try:
            used = time.clock_gettime((~process_id << 3) | 2)  # as clock_getcpuclockid makes it
        except OSError:
            self._seen.pop(process_id, None)
            self._warned.pop(process_id, None)
            self._rubbish.add(folder)
            return False
        has_run = used != self._seen.get(process_id)
        self._seen[process_id] = used
        if self._bounds is not None and (has_run or process_id in self._warned):
            self._enforce(process_id, bytes_used(folder, process_id, self._bounds), self._bounds)
        return True

    def _enforce(self, process_id: int, used: int, bounds: Bounds) -> None:
        if used <= bounds.bytes:
            self._warned.pop(process_id, None)
            return
        now = time.monotonic()
        since, before = self._warned.get(process_id, (now, used))
        self._warned[process_id] = since, used
        is_growing = used > before and bounds.is_flagrant(used)
        number = signal.SIGKILL if is_growing or now - since > _GRACE_SECONDS else signal.SIGXFSZ
        with contextlib.suppress(OSError):
            os.kill(process_id, number)


class Rubbish:
    """Folders to remove, step by step, however deep they are.

    Args:
        place: Folder into which they are moved, so that no path exceeds the system's limit.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._waiting: list[str] = []
        self._number = 0

    def add(self, folder: str) -> None:
        """Add a folder; its name is free at once. A link is only removed, never followed."""
        self._number += 1
        name = f"{self._place}/gone-{os.getpid()}-{self._number}"
        with contextlib.suppress(OSError):
            if os.path.islink(folder):
                os.unlink(folder)
                return
            os.chmod(folder, 0o700)  # an unreadable one cannot be moved
            os.rename(folder, name)
            self._waiting.append(name)

    def clear(self, most_steps: int) -> bool:
        """Remove up to ``most_steps`` entries; return whether all are removed."""
        while self._waiting and most_steps > 0:
            current = self._waiting[-1]
            with contextlib.suppress(OSError), scan(current, self._place) as entries:
                for entry in itertools.islice(entries, most_steps):
                    most_steps -= 1
                    path = f"{current}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        self.add(path)
                    else:
                        os.unlink(path)
            most_steps -= 1
            with contextlib.suppress(OSError):
                os.unlink(current) if os.path.islink(current) else os.rmdir(current)
                self._waiting.remove(current)
        return not self._waiting


def start(scratch: str, bounds: Bounds | None) -> int:
    """Fork the watchdog; it ends after the returned descriptor is closed everywhere."""
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
        DiskWatchdog(scratch, bounds).keep(reading)
    finally:
        os._exit(0)
