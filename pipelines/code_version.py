"""What code made a result: a digest of our source, and the git commit where there is one."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DECIDING = ("sandbox", "envs", "policies", "pipelines/stages")
"""Folders whose code decides what a stage makes; a change elsewhere lets old results stand."""
DECIDING_FILES = ("pipelines/curation.py", "pipelines/similarity.py")


@cache
def code_version() -> str:
    """Give a digest of the source that decides what stages make, 16 hex digits."""
    sha = hashlib.sha256()
    for path in sorted(_sources()):
        sha.update(str(path.relative_to(ROOT)).encode())
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


@cache
def git_commit() -> str | None:
    """Give the commit of the checkout that this code lies in, with ``+`` if it was changed."""
    if not (ROOT / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _sources() -> list[Path]:
    found = [path for name in DECIDING for path in (ROOT / name).rglob("*.py")]
    return found + [ROOT / name for name in DECIDING_FILES]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
