"""Inference of the kind of a reference answer, where a file does not specify it.

The graders' own parsers are used: a reference that is one number only (apart from a sign, a
currency or percent sign) is a number, a plain yes or no is a boolean, all else is text. Also text
are numbers with a unit or noun (``2 cats``), which a number would omit; times, dates, ranges and
lists (``3:30``, ``1/2/2020``, ``3-5``, ``(3, -4)``); identifiers with a leading zero (``007``);
``3,4`` and ``4K``, which are ambiguous; single letters, and ``right`` and ``wrong``.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ..types import AnswerKind
from .numerals import CURRENCIES, numbers_of
from .text_forms import plain_text

_TRUTHS = frozenset(("yes", "no", "true", "false"))
_AFFIXES = re.compile(rf"\s*(?:%|percent|per cent|[{CURRENCIES}])?")
_CURRENCY = re.compile(rf"[{CURRENCIES}]\s*")
_MOST_DIGITS = 1000
_IDENTIFIER = re.compile(r"[-+]?0\d|[-+]?\d+,(?:\d{1,2}|\d{4,})$|.*\d(?:k|m|b|bn)$")


def kind_of(reference: str) -> AnswerKind:
    """Return the inferred kind of a reference answer.

    >>> [kind_of(text).value for text in ("Yes.", "1,234", "50%", "twenty-one", "2 cats", "007")]
    ['boolean', 'integer', 'number', 'integer', 'text', 'text']
    """
    plain = plain_text(reference)
    if plain in _TRUTHS:
        return AnswerKind.BOOLEAN
    numbers = numbers_of(plain)
    if len(numbers) != 1:
        return AnswerKind.TEXT
    (number,) = numbers
    before, after = plain[: number.start], plain[number.end :]
    core = plain[number.start : number.end]
    is_alone = not _CURRENCY.sub("", before, count=1) and _AFFIXES.fullmatch(after) is not None
    if not is_alone or _IDENTIFIER.match(_CURRENCY.sub("", core)):
        return AnswerKind.TEXT
    is_bare = not before and not after.strip() and not _CURRENCY.search(core)
    return AnswerKind.INTEGER if is_bare and _is_whole(core, number.value) else AnswerKind.NUMBER


def _is_whole(core: str, value: Fraction) -> bool:
    """Return whether a number is written as an integer, in words or in digits."""
    digits = re.sub(r"\D", "", core)[:_MOST_DIGITS]
    return value.denominator == 1 and (not digits or int(digits) == abs(value))
