"""On which kind of file system a path lies, by the kernel's list of mounts."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")

_NETWORK = re.compile(
    r"(nfs|cifs|smb|9p|ceph|lustre|gpfs|beegfs|afs|ocfs2|gfs2|orangefs|pvfs2|virtiofs|vboxsf"
    r"|prl_fs|vmhgfs|glusterfs|fuse(\.|$)).*"
)
"""Kinds on which memory is not shared between machines, or not at all. ``fuseblk`` is a disk."""


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the kind of file system that ``path`` lies on; ``unknown`` if the list cannot be read.

    Args:
        path: Need not exist.
        mounts: The list, as Linux writes it.
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
    """Whether SQLite's write-ahead log breaks there: it needs memory that all writers share."""
    return _NETWORK.fullmatch(kind) is not None


def _unescaped(field: str) -> str:
    r"""Undo the kernel's ``\040`` for a space."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
