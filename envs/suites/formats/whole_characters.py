"""Check for text that was cut in the middle of a character and cannot be encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from ...text.unicode_text import lone_surrogate
from ..base import SuiteError


def require_whole_characters(row: Mapping[str, Any]) -> None:
    r"""Refuse half of a character (JSON's ``\ud83d`` alone) in any text of a row, keys included.

    Raises:
        SuiteError: A text holds one; the message names the key.
    """
    for key, value in row.items():
        for text in _texts([key, value]):
            if (half := lone_surrogate(text)) is not None:
                raise SuiteError(
                    f"{key!r} holds {half}, half of a character that was cut in two; write the "
                    "whole character, or leave it out"
                )


def _texts(value: object) -> Iterator[str]:
    """Yield the texts of a JSON value at any depth."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list):
            waiting += cast(list[object], one)
        elif isinstance(one, dict):
            for pair in cast(dict[str, object], one).items():
                waiting += pair
