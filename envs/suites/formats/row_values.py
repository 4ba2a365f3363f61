"""Parsing of a row from JSON, and checks of the types of its values."""

from __future__ import annotations

import json
import math
from typing import Any, cast

from ..base import SPLITS, SuiteError
from .bad_rows import quoted

_CONSTANTS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}


def read_row(content: str) -> dict[str, Any]:
    """Return the object of a line; keys that are null or NaN (missing values) are left out.

    Raises:
        SuiteError: The line is not JSON, not an object, or of an unknown split.
    """
    try:
        found = json.loads(content.strip("\ufeff"), parse_constant=_CONSTANTS.get)
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"not JSON ({error})") from error
    if not isinstance(found, dict):
        raise SuiteError(f"expected an object with keys, got {quoted(found)}")
    fields = cast(dict[str, Any], found)
    row = {key: value for key, value in fields.items() if value is not None}
    if row.get("split", SPLITS[0]) not in SPLITS:
        raise SuiteError(f"split is {' or '.join(SPLITS)}: {quoted(row['split'])}")
    return row


def check_values(row: dict[str, Any]) -> None:
    """Refuse values that would become an unintended task; absent values are not checked.

    Raises:
        SuiteError: A value is of a wrong type, or empty.
    """
    question, answer = row.get("question"), row.get("answer")
    if question is not None and not isinstance(question, str):
        raise SuiteError(f"'question' is a text, got {quoted(question)}")
    for key, value in (("question", question), ("answer", answer)):
        if isinstance(value, str) and not value.strip():
            raise SuiteError(f"{key!r} is empty")
    if isinstance(answer, float) and not math.isfinite(answer):
        raise SuiteError("'answer' is not a finite number")
    for key in ("id", "family"):
        value = row.get(key, "")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise SuiteError(f"{key!r} is a text or a whole number, got {quoted(value)}")
