"""Report of all invalid rows of a file in one short message."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...picture import PictureError
from ..base import SuiteError

_MOST_NAMED = 20
_MOST_NUMBERED = 200
_HEAD, _TAIL = 140, 80


class BadImageError(SuiteError, PictureError):
    """An image of a row cannot be used.

    Attributes:
        file: Path of the file.
        line: Line number of the row.
        reason: Name of the image and description of the fault.
    """

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(file, line, reason)
        self.file = file
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"


def bad_rows(file: str | Path, faults: Sequence[tuple[int, str]]) -> SuiteError:
    """Return one error that lists the invalid lines of a file, in order, with reasons.

    >>> print(bad_rows("mine.jsonl", [(7, "not JSON"), (2, "there is no 'answer'")]))
    mine.jsonl: 2 rows cannot be used
      line 2: there is no 'answer'
      line 7: not JSON
    """
    found = [(line, shortened(reason)) for line, reason in sorted(faults)]
    if len(found) == 1:
        return SuiteError(f"{file}, line {found[0][0]}: {found[0][1]}")
    lines = [f"{file}: {len(found)} rows cannot be used"]
    lines += [f"  line {line}: {reason}" for line, reason in found[:_MOST_NAMED]]
    if len(found) > _MOST_NAMED:
        rest = [str(line) for line, _ in found[_MOST_NAMED : _MOST_NAMED + _MOST_NUMBERED]]
        left = len(found) - _MOST_NAMED - len(rest)
        also = f" and {left} more" if left else ""
        lines.append(f"  and lines {', '.join(rest)}{also}")
    return SuiteError("\n".join(lines))


def shortened(text: str) -> str:
    """Return a text on one line, with the middle left out where it is long."""
    text = " ".join(text.split())
    if len(text) <= _HEAD + _TAIL:
        return text
    return f"{text[:_HEAD]} … {text[-_TAIL:]}"


def quoted(value: object) -> str:
    """Return the start of a value's repr, for use within a sentence."""
    text = repr(value[:80] if isinstance(value, str | list) else value)
    return text if len(text) <= 60 else f"{text[:50]}…"
