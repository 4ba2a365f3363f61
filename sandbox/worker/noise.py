"""Warnings and log messages of libraries: each once a block, a bounded number, the rest counted.

A chart with labels in a script that its font lacks gives one warning per character and drawing.
What the code prints to standard error itself, and logs itself, is left alone.
"""

from __future__ import annotations

import linecache
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from .kept_text import printable, shortened
from .places import Places

_MOST_OF_A_KIND = 4
_MOST = 12
_TEXT_CHARACTERS = 300
_LINE_CHARACTERS = 120


class Noise:
    """What libraries warned of in the block that runs.

    Args:
        places: Whose code it comes from.
        is_printed: Whether what is written to a stream is printed.
    """

    def __init__(self, places: Places, is_printed: Callable[[object], bool]) -> None:
        self._places = places
        self._is_printed = is_printed
        self._seen: dict[object, set[str]] = {}
        self._repeated = self._left_out = 0

    def install(self) -> None:
        """Take the warnings that nothing else takes, and the log messages that would be printed."""
        warnings.showwarning = self._show_warning
        self._filter_logs(logging.StreamHandler)

    def take(self) -> str:
        """Return a note of what was left out, and start afresh."""
        counts = ((self._repeated, "repeated"), (self._left_out, "further"))
        parts = [f"{count:,} {word}" for count, word in counts if count]
        self._seen, self._repeated, self._left_out = {}, 0, 0
        return f"[library warnings left out: {', '.join(parts)}]\n" if parts else ""

    def _admits(self, kind: object, text: str) -> bool:
        """Whether there is room for another text of a kind; counts it where there is none."""
        texts = self._seen.setdefault(kind, set())
        if text in texts:
            self._repeated += 1
        elif len(texts) >= _MOST_OF_A_KIND or sum(map(len, self._seen.values())) >= _MOST:
            self._left_out += 1
        else:
            texts.add(text)
            return True
        return False

    def _show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Write a warning as Python does, less the folders; one of the worker's has no place."""
        text = printable(str(message))
        target: Any = sys.stderr if file is None else file
        if target is None or not self._admits((category, filename, lineno), text):
            return
        shown = shortened(text, _TEXT_CHARACTERS)
        if self._places.is_worker(filename):
            target.write(f"{category.__name__}: {shown}\n")
            return
        source = linecache.getline(filename, lineno) if line is None else line
        source = shortened(source.strip(), _LINE_CHARACTERS)
        formatted = warnings.formatwarning(shown, category, filename, lineno, source)
        target.write(self._places.without_folders(formatted))

    def _admits_record(self, record: logging.LogRecord) -> bool:
        if self._places.completion_mask(record.pathname):
            return True
        try:
            text = printable(record.getMessage())
        except Exception:  # noqa: BLE001 - logging says itself what is wrong with the arguments
            return True
        return self._admits((record.name, record.levelno), text)

    def _filter_logs(self, handler: Any) -> None:  # noqa: ANN401 - a class whose method is replaced
        original = handler.emit

        def emit(self: Any, record: logging.LogRecord) -> None:  # noqa: ANN401
            """Print a record, unless a library logged it and enough was printed."""
            if not noise._is_printed(self.stream) or noise._admits_record(record):
                original(self, record)

        noise = self
        handler.emit = emit
