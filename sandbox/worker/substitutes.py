"""Functions of `os` for sessions without namespaces, where the filter refuses what they call."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

_resolve: Callable[..., Any] = os.path.realpath


def replace_refused_calls() -> None:
    """Replace `os.path.realpath`, so `Path.resolve` too, and `os.posix_fallocate`.

    The first leaves a path with links as it is, but absolute: where links lead is not read. The
    second makes a file longer and reserves no disk, which could be filled before anyone looks.
    """
    os.path.realpath = _real_path
    os.posix_fallocate = _lengthen


def _real_path(filename: Any, *, strict: bool = False) -> Any:  # noqa: ANN401 - as in `os.path`
    try:
        return _resolve(filename, strict=strict)
    except PermissionError:
        return os.path.abspath(filename)


def _lengthen(fd: int, offset: int, length: int, /) -> None:
    if offset + length > os.fstat(fd).st_size:
        os.ftruncate(fd, offset + length)
