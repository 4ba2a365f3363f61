"""Memory cgroups of sessions, where this process may create any.

The kernel itself stops what a session in a cgroup fills beyond its limit, however late the host
looks. Moving a process costs some tenths of a millisecond, so only sessions whose blocks run long
are moved (`memory.watch`). Version 1 nests the groups in this process's own group. Version 2 allows
no groups below one with processes, so they are created beside it, unless it has a limit of its own
that they would escape.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ..owner import is_stale, own_mark

_PREFIX = "codedance_"
_END_SECONDS = 1.0  # for the kernel to release the processes of a group
_LOOK_SECONDS = 0.01
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A cgroup in which this process may create others.

    Attributes:
        folder: Its folder.
        version: Version of the interface, 1 or 2.
    """

    folder: Path
    version: int


def find_hierarchy(proc: Path = Path("/proc/self")) -> Hierarchy | None:
    """Return where this process may create memory cgroups; None where it may not."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
        paths = {
            controller: path
            for _, controllers, path in (line.split(":", 2) for line in lines)
            for controller in controllers.split(",")
        }
        if "memory" in paths:
            folder = _folder(mounts, "cgroup", paths["memory"])
            return Hierarchy(folder, 1) if folder and _is_ours(folder) else None
        if "" in paths:  # version 2 names no controllers
            folder = _folder(mounts, "cgroup2", paths[""])
            return None if folder is None else _beside(folder)
    return None


class SessionGroups:
    """The cgroups of one sandbox's sessions; safe to share between threads.

    Args:
        hierarchy: Cgroup in which they are created.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._base = hierarchy.folder / f"{_PREFIX}{own_mark().replace(' ', '_')}"
        self._version = hierarchy.version
        self._lock = threading.Lock()
        self._ended: list[Path] = []

    @classmethod
    def open(cls, hierarchy: Hierarchy | None) -> SessionGroups | None:
        """Return the groups of a sandbox, after those of dead trainers; None where none work."""
        if hierarchy is None:
            return None
        with contextlib.suppress(OSError):
            _remove_stale(hierarchy.folder)
            groups = cls(hierarchy)
            groups._make_base()
            return groups
        return None

    @property
    def description(self) -> str:
        """Words for the isolation level's description."""
        return f"memory cgroups (version {self._version}) for sessions whose blocks run long"

    def enclose(self, process_id: int, most_bytes: int) -> Path | None:
        """Move a process into a new group; return its folder, None where the kernel refuses.

        What the process holds already stays with the group that it leaves.
        """
        self._remove_ended()
        folder = self._base / f"session-{next(_numbers)}"
        try:
            self._make_base()  # another sandbox of this process may have removed it
            folder.mkdir()
            self._limit(folder, most_bytes)
            _write(folder / "cgroup.procs", str(process_id))
        except OSError:
            self.remove(folder)
            return None
        return folder

    def has_killed(self, folder: Path) -> bool:
        """Whether the kernel killed a process of the group because of its limit."""
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        with contextlib.suppress(OSError):
            for line in (folder / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1]) > 0
        return False

    def remove(self, folder: Path) -> None:
        """Remove a group as soon as its processes have ended."""
        with self._lock:
            self._ended.append(folder)

    def close(self) -> None:
        """Remove the groups of ended processes, and the common one with its last sandbox."""
        deadline = time.monotonic() + _END_SECONDS
        while not self._remove_ended() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        with contextlib.suppress(OSError):
            self._base.rmdir()

    def _make_base(self) -> None:
        if not self._base.exists():
            self._base.mkdir(exist_ok=True)
            if self._version == 2:
                _write(self._base / "cgroup.subtree_control", "+memory")

    def _limit(self, folder: Path, most_bytes: int) -> None:
        if self._version == 2:
            _write(folder / "memory.max", str(most_bytes))
            with contextlib.suppress(OSError):  # a kernel without swap
                _write(folder / "memory.swap.max", "0")
            return
        _write(folder / "memory.limit_in_bytes", str(most_bytes))
        with contextlib.suppress(OSError):
            _write(folder / "memory.memsw.limit_in_bytes", str(most_bytes))

    def _remove_ended(self) -> bool:
        """Remove groups without processes; return whether all ended ones are gone."""
        with self._lock:
            self._ended = [folder for folder in self._ended if not _is_removed(folder)]
            return not self._ended


def _folder(mounts: list[str], kind: str, path: str) -> Path | None:
    """Return the folder of a cgroup in the mount of its hierarchy; None where it is not visible."""
    for line in mounts:
        place, _, source = line.partition(" - ")
        words, about = place.split(), source.split()
        if about[0] != kind or (kind == "cgroup" and "memory" not in about[2].split(",")):
            continue
        root, point = words[3], Path(words[4])
        if path == root or path.startswith(f"{root.rstrip('/')}/"):
            found = point / path[len(root.rstrip("/")) :].lstrip("/")
            if found.is_dir():
                return found
    return None


def _beside(own: Path) -> Hierarchy | None:
    """Return the parent of a version 2 cgroup, where groups beside it escape no limit."""
    has_parent = (own.parent / "cgroup.subtree_control").is_file()
    folder = own.parent if has_parent else own
    controllers = (folder / "cgroup.subtree_control").read_text().split()
    if "memory" not in controllers or not _is_ours(folder):
        return None
    if has_parent and (own / "memory.max").read_text().strip() != "max":
        return None
    return Hierarchy(folder, 2)


def _is_ours(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _remove_stale(folder: Path) -> None:
    """Remove the groups of dead trainers, and no others."""
    for group in folder.glob(f"{_PREFIX}*"):
        if is_stale(group.name.removeprefix(_PREFIX).replace("_", " ")):
            for session in group.glob("*/"):
                _is_removed(session)
            _is_removed(group)


def _is_removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # a process has not ended yet
        return False
    return True


def _write(path: Path, text: str) -> None:
    """Write a control file, which has to exist."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
