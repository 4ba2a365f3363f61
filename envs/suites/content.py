"""Digest of the files of a suite: other content means other tasks."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from .jsonl import picture_files
from .loading import file_of


def suite_content(name: str) -> str | None:
    """Return the digest of a suite's file and of every image that it names; None without a file.

    Args:
        name: Name of the suite, as for `load_suite`.
    """
    path = file_of(name)
    if path is None or not path.is_file():
        return None
    sha = hashlib.sha256(path.read_bytes())
    for picture in picture_files(path) if path.suffix == ".jsonl" else ():
        sha.update(_digest_now(picture))
    return sha.hexdigest()


def _digest_now(path: Path) -> bytes:
    try:
        found = path.stat()
    except OSError:
        return b"missing"
    return _digest(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=65_536)
def _digest(path: Path, size: int, changed: int) -> bytes:  # the state is part of the cache's key
    """Hash a file; an unchanged one is not read again."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b"missing"
