"""Warnings and log messages of libraries: each once per block, limited in number, rest counted.

A chart with labels in a script that its font lacks causes one warning per character and drawing.
What the code itself prints to standard error or logs is not filtered.
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
    """Warnings of libraries in the running block.

    Args:
        places: Classification of files as the model's, a library's or the worker's.
        is_printed: Function that returns whether a stream is printed.
    """

    def __init__(self, places: Places, is_printed: Callable[[object], bool]) -> None:
        self._places = places
        self._is_printed = is_printed
        self._seen: dict[object, set[str]] = {}
        self._repeated = self._left_out = 0

    def install(self) -> None:
        """Intercept unhandled warnings, and log messages that would be printed."""
        warnings.showwarning = self._show_warning
        self._filter_logs(logging.StreamHandler)

    def take(self) -> str:
        """Return a note of what was left out, and reset."""
        counts = ((self._repeated, "repeated"), (self._left_out, "further"))
        parts = [f"{count:,} {word}" for count, word in counts if count]
        self._seen, self._repeated, self._left_out = {}, 0, 0
        return f"[library warnings left out: {', '.join(parts)}]\n" if parts else ""

    def _admits(self, kind: object, text: str) -> bool:
        """Whether another text of a kind is within the limits; counts it where it is not."""
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
        """Write a warning as Python does, without folders; one of the worker's has no location."""
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
        if self._places.is_model_code(record.pathname):
            return True
        try:
            text = printable(record.getMessage())
        except Exception:  # noqa: BLE001 - logging reports invalid arguments itself
            return True
        return self._admits((record.name, record.levelno), text)

    def _filter_logs(self, handler: Any) -> None:  # noqa: ANN401 - a class whose method is replaced
        original = handler.emit

        def emit(self: Any, record: logging.LogRecord) -> None:  # noqa: ANN401
            """Print a record, unless a library logged it and the limit is reached."""
            if not noise._is_printed(self.stream) or noise._admits_record(record):
                original(self, record)

        noise = self
        handler.emit = emit
