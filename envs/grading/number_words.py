"""Numbers in English words: ``two hundred and five``, ``12 thousand``, ``two thirds``.

    number    = group { magnitude ["and"] group } [magnitude]    magnitudes decrease
    group     = [below 100 | "a"] "hundred" [["and"] below 100]  |  below 100
    below 100 = tens ["-" digit]  |  zero to nineteen

Digits may replace the first group (``1.5 million``). A number may be followed by ``point`` and
digits, or by a fraction (``and a half``, ``two thirds``). Vague amounts (``hundreds``, ``a dozen``,
``a few thousand``) are not numbers, nor is ``one`` as a pronoun (``no one``), nor an ordinal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_UNIT_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TEN_WORDS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = {word: value for value, word in enumerate(_UNIT_WORDS)}
_TENS = {word: 10 * value for value, word in enumerate(_TEN_WORDS, start=2)}
_MAGNITUDES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES = {"dozen": 12, "hundred": 100, **_MAGNITUDES}
_PARTS = {
    **{"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7},
    **{"eighth": 8, "ninth": 9, "tenth": 10, "hundredth": 100, "thousandth": 1000},
}
_PLURAL_PARTS = {"halves": 2, **{f"{word}s": value for word, value in _PARTS.items()}}
_ORDINALS = frozenset(("first", "second", *_PARTS)) - {"half", "quarter"}
_VAGUE = frozenset(("few", "several", "many", "some", "couple"))
_PRONOUN_AFTER = frozenset(
    ("no", "any", "every", "each", "which", "this", "that", "other", "another", "some")
)

_NEXT_WORD = re.compile(r"(?:\s+|-)([a-z]+)(?!\w)", re.IGNORECASE)
_GLUED_WORD = re.compile(r"(?:\s*|-)([a-z]+)(?!\w)", re.IGNORECASE)
_DIGITS_AFTER = re.compile(
    r"\s+(?:and\s+)?(?:(\d{3})(?![\d/:'_]|[.,]\d|\s?(?:thousand|million|billion))"
    r"|(\d{1,3})\s+thousand(?!\w))",
    re.IGNORECASE,
)
_PART = re.compile(r"(?:\s+|-)([a-z]+)(?!\w)", re.IGNORECASE)
_AND_PART = re.compile(r"\s+and\s+(?:an?|one)\s+([a-z]+)(?!\w)", re.IGNORECASE)
_DIGIT_WORDS = re.compile(rf"\s+({'|'.join(_UNIT_WORDS[:10])})(?!\w)", re.IGNORECASE)
_POINT = re.compile(r"\s+point(?!\w)", re.IGNORECASE)
_HALF_OF = re.compile(rf"half(?:\s+an?)?\s+({'|'.join(_SCALES)})(?!\w)", re.IGNORECASE)
_A_PART = re.compile(r"an?\s+(half|quarter)(?!\w)", re.IGNORECASE)
_YEAR = re.compile(
    rf"({'|'.join(_UNIT_WORDS[13:])})(?:\s|-)({'|'.join(_TEN_WORDS)})"
    rf"(?:(?:\s|-)({'|'.join(_UNIT_WORDS[1:10])}))?(?!\w|(?:\s|-)(?:hundred|thousand|million))",
    re.IGNORECASE,
)
_FIRST_WORD = re.compile(r"[a-z]+(?!\w)", re.IGNORECASE)
FIRST_WORDS = frozenset(("a", "an", "half", *_UNITS, *_TENS, *_SCALES)) - {"dozen"}
"""Words with which a number may start."""
_MOST_WORDS = 32
"""Maximum number of words of a number below 10**15; keeps time linear."""


@dataclass(frozen=True, slots=True)
class Read:
    """A parsed number, and its end in the text."""

    value: Fraction
    end: int


def read_words(text: str, start: int, *, before: str) -> Read | None:
    """Return the number whose words start at a position; None without one.

    Args:
        text: Readable text.
        start: Start of a word.
        before: Word before it; empty at the start of a clause.
    """
    if (half := _HALF_OF.match(text, start)) is not None:
        return Read(Fraction(_SCALES[half[1].lower()], 2), half.end())
    if (part := _A_PART.match(text, start)) is not None:
        return Read(Fraction(1, _PARTS[part[1].lower()]), part.end())
    if (year := _YEAR.match(text, start)) is not None:  # nineteen eighty-four
        century, decade, unit = (word.lower() if word else "zero" for word in year.groups())
        return Read(Fraction(100 * _UNITS[century] + _TENS[decade] + _UNITS[unit]), year.end())
    words = _words(text, start)
    number = _number(words, 0)
    if number is None or _is_no_number(words, number[1], before):
        return None
    value, count = number
    end = words[count - 1][1]
    read = _with_part(text, Read(Fraction(value), end), counts_parts=count == 1)
    if words[count - 1][0].removesuffix("s") in _MAGNITUDES:
        read = _with_digits(text, read)
    return magnified(text, read) if read.end > end else read


def magnified(text: str, number: Read) -> Read:
    """Return a fractional number times the magnitude after it: ``two and a half million``."""
    word = _NEXT_WORD.match(text, number.end)
    scale = _MAGNITUDES.get(_singular(word[1].lower())) if word is not None else None
    if word is None or scale is None or number.value.denominator == 1:
        return number
    return Read(number.value * scale, word.end())


def _with_digits(text: str, number: Read) -> Read:
    """Return a number plus the digits that follow its magnitude: ``4 thousand 500``."""
    digits = _DIGITS_AFTER.match(text, number.end)
    if digits is None or number.value % 1000:
        return number
    if digits[2] and number.value % 10**6:
        return number
    added = int(digits[1]) if digits[1] else 1000 * int(digits[2])
    return Read(number.value + added, digits.end())


def scaled(text: str, literal: Read) -> Read:
    """Return a number in digits times the magnitude after it: ``12 thousand``."""
    words = _words(text, literal.end, is_after_digits=True)
    if not words or _singular(words[0][0]) not in _SCALES:
        return magnified(text, _with_part(text, literal, counts_parts=False))
    scale = _SCALES[_singular(words[0][0])]
    value, count = literal.value * scale, 1
    if scale in _MAGNITUDES.values():
        rest = _number(words, _after_and(words, 1), below=scale)
        if rest is not None:
            value, count = value + rest[0], rest[1]
    elif len(words) > 1 and (further := _MAGNITUDES.get(_singular(words[1][0]))) is not None:
        value, count = value * further, 2
    read = _with_part(text, Read(value, words[count - 1][1]), counts_parts=False)
    return _with_digits(text, read) if count == 1 and scale >= 1000 else read


def _words(text: str, start: int, *, is_after_digits: bool = False) -> list[tuple[str, int]]:
    """Return the words from a position that may belong to one number, with their ends."""
    words: list[tuple[str, int]] = []
    pattern = _GLUED_WORD if is_after_digits else _FIRST_WORD
    while len(words) < _MOST_WORDS and (found := pattern.match(text, start)) is not None:
        word = found[found.lastindex or 0].lower()
        words.append((word, found.end()))
        if not _may_continue(words):
            break
        start, pattern = found.end(), _NEXT_WORD
    return words


def _may_continue(words: Sequence[tuple[str, int]]) -> bool:
    """Return whether a number may continue after the last of its words."""
    before, word = words[-2][0] if len(words) > 1 else "", words[-1][0]
    if word in _UNITS or word in _TENS:
        return before not in _UNITS
    if word == "hundred" and any(earlier == word for earlier, _ in words[-5:-1]):
        return False
    if word == "a":
        return len(words) == 1
    return word in _SCALES or (_singular(word) if word != "and" else _singular(before)) in _SCALES


def _singular(word: str) -> str:
    return word.removesuffix("s")


def _number(
    words: Sequence[tuple[str, int]], at: int, *, below: int = 10**15
) -> tuple[int, int] | None:
    """Return the value of the longest number from a word on, and the index after it."""
    total, end = 0, at
    while (group := _group(words, at)) is not None:
        value, after = group
        word = words[after][0] if after < len(words) else ""
        magnitude = _MAGNITUDES.get(word if word in _MAGNITUDES else _singular(word))
        if magnitude is None:
            return (total + value, after) if value < below else ((total, end) if end else None)
        if magnitude >= below:
            break
        total, end, below = total + value * magnitude, after + 1, magnitude
        at = _after_and(words, end)
    return (total, end) if end and total else None


def _group(words: Sequence[tuple[str, int]], at: int) -> tuple[int, int] | None:
    """Return a value below 1000 (or hundreds up to 9900, or dozens) and the index after it."""
    word = words[at][0] if at < len(words) else ""
    following = words[at + 1][0] if at + 1 < len(words) else ""
    if word == "hundred" or (word == "a" and following == "hundred"):
        lead, after = 1, at + (word == "a")
    elif word in _MAGNITUDES:
        return 1, at
    elif word == "a" and following in _MAGNITUDES:
        return 1, at + 1
    elif (read := _below_hundred(words, at)) is None:
        return None
    else:
        lead, after = read
    scale = _singular(words[after][0]) if after < len(words) else ""
    if scale == "dozen":
        return lead * 12, after + 1
    if scale != "hundred" or lead == 0:
        return lead, after
    rest = _below_hundred(words, _after_and(words, after + 1))
    if rest is None or (rest[1] < len(words) and words[rest[1]][0] in ("hundred", "dozen")):
        return lead * 100, after + 1
    return lead * 100 + rest[0], rest[1]


def _below_hundred(words: Sequence[tuple[str, int]], at: int) -> tuple[int, int] | None:
    word = words[at][0] if at < len(words) else ""
    if word in _UNITS:
        return _UNITS[word], at + 1
    if word not in _TENS:
        return None
    unit = _UNITS.get(words[at + 1][0], 0) if at + 1 < len(words) else 0
    return (_TENS[word] + unit, at + 2) if 0 < unit < 10 else (_TENS[word], at + 1)


def _after_and(words: Sequence[tuple[str, int]], at: int) -> int:
    return at + 1 if at < len(words) and words[at][0] == "and" else at


def _is_no_number(words: Sequence[tuple[str, int]], count: int, before: str) -> bool:
    first = words[0][0]
    following = words[count][0] if count < len(words) else ""
    is_ordinal = following in _ORDINALS and words[count - 1][0] in _TENS
    is_vague = first in _SCALES and before in _VAGUE
    is_pronoun = count == 1 and first == "one" and before in _PRONOUN_AFTER
    return is_ordinal or is_vague or is_pronoun


def _with_part(text: str, number: Read, *, counts_parts: bool) -> Read:
    """Return a number with what follows it: decimals in words, ``and a half``, ``thirds``."""
    if (point := _POINT.match(text, number.end)) is not None:
        return _with_decimals(text, number, point.end())
    if (added := _AND_PART.match(text, number.end)) is not None and added[1].lower() in _PARTS:
        return Read(number.value + Fraction(1, _PARTS[added[1].lower()]), added.end())
    part = _PART.match(text, number.end) if counts_parts else None
    table = _PARTS if number.value == 1 else _PLURAL_PARTS
    if part is not None and part[1].lower() in table:
        return Read(number.value / table[part[1].lower()], part.end())
    return number


def _with_decimals(text: str, number: Read, at: int) -> Read:
    value, place, end = number.value, Fraction(1, 10), number.end
    while place.denominator <= 10**15 and (digit := _DIGIT_WORDS.match(text, at)) is not None:
        value += _UNITS[digit[1].lower()] * place
        place, at = place / 10, digit.end()
        end = at
    return Read(value, end)
