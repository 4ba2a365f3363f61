"""The code that made a result: a digest of our source and its data, and the git commit, if any.

The digest covers everything in the four packages that decides a draw, a turn, a verdict or an
update: all of their Python and the data that it reads. It leaves out what only shows results (the
viewer's scripts and styles) and flows.yaml, whose values are recorded with each run. The digest is
the same for a checkout and an installed wheel.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("sandbox", "envs", "policies", "pipelines")
SUFFIXES = (".py", ".npz")
DATA = (
    "policies/checkpoints/nano/*",
    "sandbox/docker/image/Dockerfile",
    "sandbox/docker/image/*.json",
)
"""Patterns of packaged files of other kinds that decide results."""


@cache
def code_version() -> str:
    """Return a digest of all code and data that decide the stages' results, 16 hex digits."""
    return tree_digest(ROOT)[:16]


def tree_digest(root: Path) -> str:
    """Return the digest of the deciding files under ``root``, in hex."""
    sha = hashlib.sha256()
    for name, path in sorted(
        (one.relative_to(root).as_posix(), one) for one in deciding_files(root)
    ):
        sha.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return sha.hexdigest()


def deciding_files(root: Path) -> Iterator[Path]:
    """Yield the files under ``root`` whose content decides results."""
    for room in ROOMS:
        yield from (path for path in (root / room).rglob("*") if path.suffix in SUFFIXES)
    for pattern in DATA:
        yield from (path for path in root.glob(pattern) if path.suffix != ".md")


@cache
def git_commit() -> str | None:
    """Return the checkout's commit, with ``+`` for local changes; None outside a checkout."""
    if not (ROOT / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
