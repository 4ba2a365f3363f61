"""A user's families in a file: ``clocks.py`` is a suite like any other.

The file contains Python that calls `register_family`; it runs in this process, as the user's own
code, never in the sandbox.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType

from ..traced import line_in
from .base import SuiteError
from .generated import families_of, suites_with_families

ENDING = ".py"
_LOADED: dict[tuple[Path, str], str] = {}


def suite_of_file(path: Path) -> str:
    """Run a file once and return the name of the suite whose families it registers.

    A file that has changed is run again.

    Raises:
        SuiteError: The file does not exist, fails, or registers families of no suite or of several.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror})") from None
    key = (path.resolve(), hashlib.sha256(content).hexdigest())
    if key not in _LOADED:
        _LOADED[key] = _only_suite(_run(path), path)
    return _LOADED[key]


def _run(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"families_of_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise SuiteError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a file may call exit()
        line = line_in(path, error)
        raise SuiteError(f"{path}{line}: {type(error).__name__}: {error}") from error
    return module


def _only_suite(module: ModuleType, path: Path) -> str:
    """Return the one suite for which functions of the module were registered."""
    found = [
        name
        for name in suites_with_families()
        if any(draw.__module__ == module.__name__ for draw in families_of(name).values())
    ]
    if len(found) != 1:
        named = " and ".join(found) or "none"
        raise SuiteError(
            f"{path} has to register families of one suite with @register_family, found: {named}"
        )
    return found[0]
