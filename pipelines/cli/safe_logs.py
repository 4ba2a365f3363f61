"""Logs and warnings of commands, which may quote a model, as text that is safe in a terminal."""

from __future__ import annotations

import logging
import warnings


class SafeFormatter(logging.Formatter):
    """Formatter that shows control characters as escapes, in tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        from ...sandbox.plain_text import escape_controls

        return escape_controls(super().format(record))


def protect_terminal() -> None:
    """Apply it to log records that no other handler takes, and to warnings."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(SafeFormatter("%(message)s"))
    original = warnings.formatwarning

    def formatwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        from ...sandbox.plain_text import escape_controls

        return escape_controls(original(message, category, filename, lineno, line))

    warnings.formatwarning = formatwarning
