"""Capture of what Python code writes to descriptors 1 and 2, which are /dev/null by default.

``os.write`` is captured directly. Where code requests a stream's descriptor, or opens one of the
two by its number, an unlinked file in the session's folder takes its place; the disk limit applies
to it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_CHUNK = 65_536
_NULL = os.makedev(1, 3)
_OPENS = re.compile(r"\b(?:open|fdopen|FileIO|dup|writev)\(\s*(?:(?:fd|file)\s*=\s*)?([12])\s*[,)]")


class DescriptorFile:
    """The file behind the descriptor of one stream.

    Args:
        folder: Folder in which its file is created on first use.
        number: The stream's standard descriptor, 1 or 2.
        has_fileno: Whether `fileno` is ``number``; else a descriptor unknown to C code.
    """

    def __init__(self, folder: str, number: int, *, has_fileno: bool) -> None:
        self._folder = folder
        self._number = number
        self._has_fileno = has_fileno
        self._own = -1
        self._identity: tuple[int, int] | None = None  # once the file is open
        self._is_led = False

    @property
    def is_open(self) -> bool:
        """Whether the descriptor was requested."""
        return self._identity is not None

    def fileno(self) -> int:
        """Return a descriptor of the file."""
        if self._has_fileno:
            self.lead()
            return self._number
        if self._identity is None:
            self._open()
        return self._own

    def lead(self) -> None:
        """Redirect ``number`` to the file from now on."""
        if self._identity is None or not self.is_ours(self._own):
            self._open()
        if not self.is_ours(self._number):
            os.dup2(self._own, self._number)
        self._is_led = True

    def restore(self) -> None:
        """Restore, before a block, the descriptors that the last one closed or replaced."""
        if self._identity is not None and not self.is_ours(self._own):
            self._open()
        if self._is_led:
            self.lead()
        elif not is_null(self._number):
            null = os.open(os.devnull, os.O_RDWR)
            if null != self._number:
                os.dup2(null, self._number)
                os.close(null)

    def take(self) -> Iterator[bytes]:
        """Yield what was written since the last call, in parts."""
        if self._identity is None:
            return
        try:
            found = os.fstat(self._own)
            if not found.st_size or (found.st_dev, found.st_ino) != self._identity:
                return
            for start in range(0, found.st_size, _CHUNK):
                yield os.pread(self._own, _CHUNK, start)
            os.ftruncate(self._own, 0)
        except OSError:
            return

    def _open(self) -> None:
        path = os.path.join(self._folder, f".output-{self._number}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._own = os.open(path, flags, 0o600)
        os.unlink(path)
        found = os.fstat(self._own)
        self._identity = found.st_dev, found.st_ino

    def is_ours(self, descriptor: int) -> bool:
        """Whether a descriptor, which may be a duplicate, refers to the file."""
        if self._identity is None:
            return False
        try:
            found = os.fstat(descriptor)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity


class Write:
    """Replacement of ``os.write``; not a function, which a class would bind as a method.

    Args:
        original: ``os.write`` itself.
        receivers: Receivers of what is written to a descriptor that is /dev/null.
    """

    __name__ = "write"

    def __init__(
        self,
        original: Callable[[int, Any], int],
        receivers: Mapping[int, Callable[[bytes], None]],
    ) -> None:
        self._original = original
        self._receivers = receivers

    def __call__(self, fd: int, data: Any, /) -> int:  # noqa: ANN401 - whatever has a buffer
        """Write bytes to a descriptor."""
        if type(fd) is int and fd in self._receivers and is_null(fd):
            raw = bytes(memoryview(data))
            self._receivers[fd](raw)
            return len(raw)
        return self._original(fd, data)


def opened_by_number(source: str) -> set[int]:
    """Return the descriptors, of 1 and 2, that a block opens by their number."""
    return {int(number) for number in _OPENS.findall(source)}


def is_null(descriptor: int) -> bool:
    """Whether a descriptor is /dev/null."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL
