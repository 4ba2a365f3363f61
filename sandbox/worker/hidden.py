"""Files of CodeDance among the libraries, which no session may read.

With the package, model code could draw a task again and look up its answer. A copy may lie beside
the worker's libraries, among those of the interpreter that a virtual environment is based on, among
the system's, or inside another package.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence

NAME = "codedance"
"""Part of the names that are hidden: package, metadata, eggs, wheels, links of editable installs,
and packages that extend it."""

_LIBRARIES = ("*-packages", "python*", "python*/*-packages", "pypy*", "pypy*/*-packages")
_INSIDE = (f"*/{NAME}", f"*/_vendor/{NAME}")


def hidden_paths(sources: Iterable[str], paths: Iterable[str]) -> list[str]:
    """Return what has to be hidden, by its real path, none inside another.

    Args:
        sources: Files and folders that sessions can read.
        paths: Folders on ``sys.path``.
    """
    needed = {os.path.realpath(path) for path in paths}
    folders = set(needed)
    for source in {os.path.realpath(source) for source in sources}:
        folders |= {source, *map(os.path.realpath, _below(source, _LIBRARIES))}
    found: set[str] = set()
    for folder in folders:
        found.update(_entries_of(folder))
        if folder.endswith("-packages"):
            found.update(_below(folder, _INSIDE))
    real = {os.path.realpath(path) for path in found}
    return _outermost(path for path in real if not _holds_any(path, needed))


def is_within(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _entries_of(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError:  # a file, or a folder that only root may list
        return []
    found = [os.path.join(folder, name) for name in names if NAME in name.lower()]
    if "__pycache__" in names:  # of a finder of an editable install
        found += _entries_of(os.path.join(folder, "__pycache__"))
    return found


def _below(folder: str, patterns: Sequence[str]) -> list[str]:
    here = glob.escape(folder)
    return [path for pattern in patterns for path in glob.iglob(f"{here}/{pattern}")]


def _holds_any(path: str, needed: Iterable[str]) -> bool:
    """Whether Python's own libraries lie there: an environment may have this name too."""
    return any(is_within(one, path) for one in needed)


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda path: (len(path), path)):
        if not any(is_within(path, other) for other in kept):
            kept.append(path)
    return kept
