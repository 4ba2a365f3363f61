"""The numbers in a text, in digits or in words, as exact fractions with their positions.

All graders use one grammar. A number is a run of digits with its separators, parsed as a whole:

- thousands by comma, point, apostrophe, underscore or space in groups of three (or as in India),
  a decimal point or comma: ``1,234.5``, ``1.234,5``, ``1 234``, ``12,34,567``, ``0,5``
- a sign (``-``, ``minus``, ``negative``), a currency sign, an exponent (``1e3``, ``1.2 × 10^3``),
  a power (``10^3``), a fraction (``3/4``, ``2 1/2``), a magnitude (``2 million``, ``5k``)

Not numbers are the digits of a word (``m2``), the power of a unit (``cm^2``), and runs with other
meanings: times and ratios (``3:30``), dates (``1/2/2020``), versions (``1.2.3``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from .number_words import FIRST_WORDS, Read, magnified, read_words, scaled
from .text_forms import readable_text

CURRENCIES = "$€£¥₹₽₩¢"

_CODES = "usd|eur|gbp|chf|jpy|inr|rs|cny|rmb|aud|cad"
_SCANNED = re.compile(
    r"(?P<run>(?:(?<![\w.])\.)?\d+(?:[.,'_:]\d+)*)"
    rf"|(?P<code>(?:{_CODES})(?=\d))"
    r"|(?P<word>[^\W\d_](?:[^\W_]|_(?=\w))*(?:(?<=\d)(?:\.\d+)+)?)"
    r"(?P<power>(?:\^|(?:\*\*(?=\d+(?!\d|\*))))[-+]?\d+)?"
    r"|(?P<raised>\^\s?\(?[-+]?\d+)",  # not of a number: "(cm)^2", "cm ^ 2"
    re.IGNORECASE,
)
_POINT_FORM = re.compile(r"(\d*)(?:\.(\d+))?")
_GROUPED = (
    re.compile(r"(\d{1,3}(?:,\d{3})+)(?:\.(\d+))?"),
    re.compile(r"(\d{1,2}(?:,\d{2})+,\d{3})(?:\.(\d+))?"),
    re.compile(r"(\d{1,3}(?:\.\d{3})+),(\d+)"),
    re.compile(r"(\d{1,3}(?:\.\d{3}){2,})()"),
    re.compile(r"(\d{1,3}(?:'\d{3})+)(?:[.,](\d+))?"),
    re.compile(r"(\d+(?:_\d+)+)(?:\.(\d+))?"),
)
_COMMA_FORM = re.compile(r"(\d+),(\d+)")
_SPACED_GROUP = re.compile(r"[ \t](\d{3})(?![\d:'_])((?:[.,]\d+)?)")
_EXPONENT = re.compile(r"[eE]([-+]?\d+)(?!\w)")
_TIMES_POWER = re.compile(r"\s{0,3}[x×*·⋅]\s{0,3}10\s{0,3}\^\s{0,3}([-+]?\d+)")
_RAISED = re.compile(r"(?:\s?\^\s?|\*\*)([-+]?\d+)")
_REST = re.compile(r"(?:(?:\s?/\s?|[eE^][-+]?|\*\*|[.,:])\d+)*")
_RATIO = re.compile(r"(\s{0,3})/(\s{0,3})(\d+(?:[.,]\d+)*)((?:/\d)?)")
_MIXED = re.compile(r"(?: {1,2}|-)(\d{1,9})/(\d{1,9})(?![\d/]|[.,:]\d)")
_CHAINED = re.compile(r"(?:-\d+){2,}")
_LETTER_MAGNITUDE = re.compile(r"(k|K|M|B)(?!\w)|\s?(bn|mn|mio|lakhs?|crores?)(?!\w)")
_LETTERS = {
    **{"k": 10**3, "K": 10**3, "M": 10**6, "mn": 10**6, "mio": 10**6, "B": 10**9, "bn": 10**9},
    **{"lakh": 10**5, "lakhs": 10**5, "crore": 10**7, "crores": 10**7},
}
_SYMBOL = "√π"
_AFTER_SYMBOL = re.compile(rf"[{_SYMBOL}][\s(]{{0,3}}(?:\)?\s?[/*×·+-]\s?\(?)?$")
_BEFORE_SYMBOL = re.compile(rf"\)?\s?(?:[/*×·+-]\s?\(?)?(?:[{_SYMBOL}]|pi(?!\w))")
_OPERATOR = re.compile(r"[\s()]*[/*×·+-]?[\s()]*")
_SIGN = re.compile(
    rf"(?:^|[^\w.)\]}}\-%°])([-+])(?:[{CURRENCIES}]\s?)?$"
    rf"|(?:[=(≈]\s{{0,2}}|^[\s{CURRENCIES}]*(?<=\$))([-+]) $"
    rf"|(?:^|[^\w])(minus|negative)(?:\s+|-)(?:[{CURRENCIES}]\s?)?$",
    re.IGNORECASE,
)
_LONGEST_SIGN = 16

_MOST_DIGITS = 1000
"""Digits of a number that are parsed at most; Python refuses to convert 4,300 and more."""
_MOST_POWER = 999
_MOST_BITS = 10_000
"""Larger powers, and powers with more bits, are not computed."""

_WHERE_NOTHING_ELSE = {"none": Fraction(0), "half": Fraction(1, 2)}
_ALONE = re.compile(rf"\b({'|'.join(_WHERE_NOTHING_ELSE)})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a readable text.

    Attributes:
        value: Exact value.
        start: Start, including its sign.
        end: End, excluding a unit.
        has_digits: Whether it is written in digits, at least in part.
    """

    value: Fraction
    start: int
    end: int
    has_digits: bool = True


def numbers_in(text: str) -> list[Fraction]:
    """Return all numbers in order; ``none`` is 0 and ``half`` 1/2 where there is no other.

    >>> [str(number) for number in numbers_in("-2 of 1,000.5 cm^2, or two thousand and one")]
    ['-2', '2001/2', '2001']
    """
    readable = readable_text(text)
    numbers = [number.value for number in numbers_of(readable)]
    if not numbers and (alone := _ALONE.search(readable)) is not None:
        return [_WHERE_NOTHING_ELSE[alone[1].lower()]]
    return numbers


def numbers_of(readable: str) -> list[Number]:
    """Return the numbers of a readable text with their positions."""
    return list(_signed(readable, _without_expressions(readable, _scan(readable))))


def _without_expressions(text: str, numbers: Iterator[Number]) -> Iterator[Number]:
    """Yield the numbers, without those in an expression with a root or π."""
    previous_end, was_part = 0, False
    for number in numbers:
        before = text[max(previous_end, number.start - _LONGEST_SIGN) : number.start]
        gap = text[previous_end : number.start]
        is_next = was_part and len(gap) <= _LONGEST_SIGN and _OPERATOR.fullmatch(gap) is not None
        is_part = is_next and gap.strip() != ""
        is_part = is_part or _AFTER_SYMBOL.search(before) is not None
        is_part = is_part or _BEFORE_SYMBOL.match(text, number.end) is not None
        if not is_part:
            yield number
        previous_end, was_part = number.end, is_part


def _scan(text: str) -> Iterator[Number]:
    """Yield the numbers of a text without their signs."""
    at, before = 0, ""
    while (found := _SCANNED.search(text, at)) is not None:
        at = found.end()
        if found["run"] is not None:
            numbers, at = _read_run(text, found)
            yield from numbers
            before = ""
        elif found["word"] is not None:
            word = found["word"].lower()
            read = read_words(text, found.start(), before=before) if word in FIRST_WORDS else None
            if read is not None:
                yield Number(read.value, found.start(), read.end, has_digits=False)
                at = read.end
            before = word if text[at : at + 1].isspace() else ""


def _signed(text: str, numbers: Iterator[Number]) -> Iterator[Number]:
    previous_end = 0
    for number in numbers:
        first = max(0, previous_end - 1, number.start - _LONGEST_SIGN)
        sign = _SIGN.search(text[first : number.start])
        yield number if sign is None else _with_sign(text, number, sign, first, previous_end)
        previous_end = number.end


def _with_sign(
    text: str, number: Number, sign: re.Match[str], first: int, previous_end: int
) -> Number:
    start = first + max(sign.start(1), sign.start(2), sign.start(3))
    if sign[3] and previous_end and not text[previous_end:start].strip():
        return number  # "5 minus 3" contains no -3
    return replace(
        number, start=start, value=number.value if "+" in (sign[1], sign[2]) else -number.value
    )


def _read_run(text: str, found: re.Match[str]) -> tuple[list[Number], int]:
    """Parse a run of digits with its context; no numbers where it has another meaning."""
    start, end = found.span()
    if (chain := _CHAINED.match(text, end)) is not None:
        return [], chain.end()  # a date, a telephone number
    spaced = _spaced_thousands(text, found[0], end)
    values, end = ([spaced[0]], spaced[1]) if spaced else (_values(found[0]), end)
    if len(values) != 1:
        return _listed(found[0], start, values), end
    read = _extended(text, Read(values[0], end))
    if read is None:
        rest = _REST.match(text, end)
        return [], rest.end() if rest is not None else end
    return [Number(read.value, start, read.end)], read.end


def _extended(text: str, literal: Read) -> Read | None:
    """Return a number with its power, fraction or magnitude; None for dates, n/0 and the like."""
    value, end = literal.value, literal.end
    for pattern in (_EXPONENT, _TIMES_POWER, _RAISED):
        if (power := pattern.match(text, end)) is not None:
            return _raised(value, power, is_base=pattern is _RAISED)
    ratio = _RATIO.match(text, end)
    if ratio is not None and len(ratio[1]) == len(ratio[2]):
        divided = _divided(literal, ratio)
        return None if divided is None else magnified(text, divided)
    mixed = _MIXED.match(text, end)
    if mixed is not None and value.denominator == 1 and 0 < int(mixed[1]) < int(mixed[2]):
        added = Fraction(int(mixed[1]), int(mixed[2]))
        return magnified(text, Read(value + added, mixed.end()))
    if (letter := _LETTER_MAGNITUDE.match(text, end)) is not None:
        return Read(value * _LETTERS[letter[1] or letter[2]], letter.end())
    return scaled(text, literal)


def _raised(value: Fraction, power: re.Match[str], *, is_base: bool) -> Read | None:
    """Return a value raised to a power, or times ten to it; None where that is too large."""
    exponent = int(power[1]) if len(power[1]) <= 4 else _MOST_POWER + 1
    if abs(exponent) > _MOST_POWER:
        return None
    if not is_base:
        return Read(value * Fraction(10) ** exponent, power.end())
    bits = value.numerator.bit_length() + value.denominator.bit_length()
    if bits * abs(exponent) > _MOST_BITS or (value == 0 and exponent < 0):
        return None
    return Read(value**exponent, power.end())


def _divided(above: Read, ratio: re.Match[str]) -> Read | None:
    below = _values(ratio[3])
    if ratio[4] or len(below) != 1 or below[0] == 0:
        return None
    return Read(above.value / below[0], ratio.end())


def _spaced_thousands(text: str, run: str, end: int) -> tuple[Fraction, int] | None:
    """Return a number in groups of three digits with spaces between, as in ``1 234 567,8``."""
    if not (run.isdigit() and len(run) <= 3 and not run.startswith("0")):
        return None
    groups, part = [run], ""
    while not part and (group := _SPACED_GROUP.match(text, end)) is not None:
        groups.append(group[1])
        part, end = group[2][1:], group.end()
    return (_value("".join(groups), part), end) if len(groups) > 1 else None


def _values(run: str) -> list[Fraction]:
    """Return the values of a run of digits and separators; empty where it is not a number."""
    if (plain := _POINT_FORM.fullmatch(run)) is not None:
        return [_value(plain[1], plain[2])]
    for grouped in _GROUPED:
        if (found := grouped.fullmatch(run)) is not None and not run.startswith("0"):
            return [_value(re.sub(r"\D", "", found[1]), found[2])]
    if (comma := _COMMA_FORM.fullmatch(run)) is not None:
        return [_value(comma[1], comma[2])]
    listed = [_POINT_FORM.fullmatch(part) for part in run.split(",")]
    if len(listed) > 2 and all(listed):
        return [_value(part[1], part[2]) for part in listed if part is not None]
    return []


def _listed(run: str, start: int, values: list[Fraction]) -> list[Number]:
    """Return the numbers of a list such as ``1,2,3`` with their positions."""
    numbers: list[Number] = []
    for part, value in zip(run.split(","), values, strict=False):
        numbers.append(Number(value, start, start + len(part)))
        start += len(part) + 1
    return numbers


def _value(whole: str, part: str | None) -> Fraction:
    whole, part = whole[:_MOST_DIGITS], (part or "")[:_MOST_DIGITS]
    return Fraction(int((whole or "0") + part), 10 ** len(part))
