"""Query of the import paths of a Python interpreter."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from dataclasses import dataclass

from ..types import SandboxUnavailableError

_QUESTION = """
import json, sys
print(json.dumps([sys.version_info[:2], sys.base_prefix, [p for p in sys.path if p]]))
"""
_LIBRARY_FOLDERS = ("site-packages", "dist-packages", "lib-dynload")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter for the worker.

    Attributes:
        executable: Path of the interpreter.
        base_prefix: Prefix of its standard library (a virtual environment's base).
        paths: Folders on its import path: standard library and installed packages only; in UTF-8
            like ``base_prefix``, as the worker reads them.
    """

    executable: str
    base_prefix: str
    paths: tuple[str, ...]


@functools.lru_cache(maxsize=8)
def ask_interpreter(executable: str) -> Interpreter:
    """Run ``executable`` once and return its import paths.

    Folders that a ``.pth`` file or the current folder adds are left out: a project's own folder
    may hold the answers.

    Raises:
        SandboxUnavailableError: The interpreter does not run, or is older than Python 3.10.
    """
    command = [executable, "-E", "-X", "utf8", "-c", _QUESTION]
    try:
        answer = subprocess.run(command, capture_output=True, cwd="/", timeout=60, check=True)
        version, base_prefix, paths = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SandboxUnavailableError(
            f"python={executable!r} cannot be run as the worker: {error}"
        ) from error
    if tuple(version) < (3, 10):
        raise SandboxUnavailableError(
            f"the worker needs Python 3.10 or later, {executable!r} is {version}"
        )
    paths, base_prefix = [_as_here(path) for path in paths], _as_here(base_prefix)
    standard = os.path.join(base_prefix, "")
    kept = [path for path in paths if _is_library(path, standard) and os.path.exists(path)]
    return Interpreter(executable, as_utf8(base_prefix), tuple(map(as_utf8, kept)))


def as_utf8(path: str) -> str:
    """Return a path as the worker reads it, whose file names are always UTF-8."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def _as_here(path: str) -> str:
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))


def _is_library(path: str, standard: str) -> bool:
    return path.startswith(standard) or os.path.basename(path) in _LIBRARY_FOLDERS
