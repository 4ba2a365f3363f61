"""The numbers that a text names, in digits or in words, as exact fractions."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {
    "a": 1,
    "and": 0,
    **{word: value for value, word in enumerate(_UNITS)},
    **{word: 10 * value for value, word in enumerate(_TENS, start=2)},
}

_UNIT = "|".join(_UNITS[1:10])
_BELOW_HUNDRED = rf"(?:(?:{'|'.join(_TENS)})(?:[-\s](?:{_UNIT}))?|{'|'.join(_UNITS)})"
_WORDS = rf"(?:(?:{_UNIT}|a)[-\s])?hundred(?:[-\s](?:and[-\s])?{_BELOW_HUNDRED})?|{_BELOW_HUNDRED}"
_DIGITS = (
    r"(?P<sign>(?<![\w.)])[-\u2212])?"  # a minus, not the hyphen of 3-5
    r"(?:(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.(?P<part>\d+))?|(?<!\d)\.(?P<only>\d+))"
    r"(?:[eE](?P<exponent>[-+]?\d{1,2})(?!\w))?"
)
_NUMBER = re.compile(rf"{_DIGITS}|\b(?P<words>{_WORDS})\b", re.IGNORECASE)

_MOST_DIGITS = 1000
"""Of a longer number only these digits are read; Python refuses to convert 4,300 and more."""


def numbers_in(text: str) -> list[Fraction]:
    """Give every number in order; ``none`` is 0 where nothing else is named.

    >>> [str(number) for number in numbers_in("-2 of 1,000.5, or twenty-one")]
    ['-2', '2001/2', '21']
    """
    numbers = [_value(match) for match in _NUMBER.finditer(text)]
    if not numbers and re.search(r"\bnone\b", text, re.IGNORECASE):
        return [Fraction(0)]
    return numbers


def _value(match: re.Match[str]) -> Fraction:
    if match["words"] is not None:
        return Fraction(_spoken(match["words"]))
    whole = (match["whole"] or "0").replace(",", "")[:_MOST_DIGITS]
    part = (match["part"] or match["only"] or "")[:_MOST_DIGITS]
    value = Fraction(int(whole + part), 10 ** len(part)) * Fraction(10) ** int(
        match["exponent"] or 0
    )
    return -value if match["sign"] else value


def _spoken(words: str) -> int:
    total = 0
    for word in re.split(r"[-\s]", words.lower()):
        total = max(total, 1) * 100 if word == "hundred" else total + _VALUES[word]
    return total
