"""The kind of file system of a path, from the kernel's list of mounts."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")

_NETWORK = re.compile(
    r"(nfs|cifs|smb|9p|ceph|lustre|gpfs|beegfs|afs|ocfs2|gfs2|orangefs|pvfs2|virtiofs|vboxsf"
    r"|prl_fs|vmhgfs|glusterfs|fuse(\.|$)).*"
)
"""File systems without shared memory between machines, or at all. ``fuseblk`` is a disk."""


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the kind of file system of ``path``; ``unknown`` if the list cannot be read.

    Args:
        path: Path, which need not exist.
        mounts: File with the list of mounts, in Linux's format.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return "unknown"
    path = path.resolve()
    best, kind = -1, "unknown"
    for fields in (line.split(" ") for line in lines):
        if len(fields) < 3:
            continue
        point = Path(_unescaped(fields[1]))
        depth = len(point.parts)
        if depth >= best and path.is_relative_to(point):  # the later mount hides the earlier
            best, kind = depth, fields[2]
    return kind


def is_network(kind: str) -> bool:
    """Return whether SQLite's write-ahead log fails there: it needs shared memory."""
    return _NETWORK.fullmatch(kind) is not None


def _unescaped(field: str) -> str:
    r"""Decode octal escapes of the kernel, such as ``\040`` for a space."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
