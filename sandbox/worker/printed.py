"""Output of a session's code, and warnings of libraries."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from .descriptors import DescriptorFile, Write, opened_by_number
from .kept_text import KeptText
from .noise import Noise
from .places import Places
from .streams import Output


class Printed:
    """Both standard streams over all blocks, and the classification of files.

    Args:
        folder: The session's own folder.
        limit: Maximum number of characters per stream and block.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self.places = Places(folder)
        clean, longest = self.places.without_folders, self.places.longest
        self._files = {
            1: DescriptorFile(folder, 1, has_fileno=True),
            2: DescriptorFile(folder, 2, has_fileno=False),
        }
        self.stdout = Output("stdout", KeptText(limit, clean, longest), self._files[1])
        self.stderr = Output("stderr", KeptText(limit, clean, longest), self._files[2])
        self._noise = Noise(self.places, self._is_printed)

    def _is_printed(self, stream: object) -> bool:
        is_current = stream is sys.stdout or stream is sys.stderr
        return is_current or self.stdout.owns(stream) or self.stderr.owns(stream)

    @classmethod
    def of_session(cls, limit: int) -> Printed:
        """Return the streams of this process, now in its own folder; ``limit`` in characters."""
        printed = cls(os.getcwd(), limit)
        printed.places.name_in_tracebacks()
        printed._noise.install()
        receivers = {1: printed.stdout.receive, 2: printed.stderr.receive}
        os.write = Write(os.write, receivers)  # type: ignore[assignment]
        return printed

    def begin(self, source: str) -> None:
        """Install the streams before a block runs."""
        sys.stdin = io.StringIO()
        self.stdout.begin()
        self.stderr.begin()
        for number in opened_by_number(source):
            self._files[number].lead()

    def end(self, namespace: dict[str, Any], traceback: str) -> None:
        """Collect the block's output, then its library warnings and traceback."""
        self.stdout.settle(namespace)
        self.stderr.settle(namespace)
        last = self._noise.take() + traceback
        if last:
            self.stderr.write(last)
