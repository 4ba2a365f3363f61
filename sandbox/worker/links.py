"""Paths of a session that must not read where links lead, as they could lead through the host."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

_resolve: Callable[..., Any] = os.path.realpath


def resolve_what_is_readable() -> None:
    """Let `os.path.realpath` and `Path.resolve` leave a path with links as it is, but absolute."""
    os.path.realpath = _real_path


def _real_path(filename: Any, *, strict: bool = False) -> Any:  # noqa: ANN401 - as in `os.path`
    try:
        return _resolve(filename, strict=strict)
    except PermissionError:
        return os.path.abspath(filename)
