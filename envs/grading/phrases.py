"""Comparable tokens of a text: words, numbers and signs; and tests for whole phrases.

Numbers are one token each, equal by value (``.5`` and ``0.50``); a unit after a number has one
name (``cm``, ``centimetres``). Punctuation is not a token, operators are. A token joined to a
neighbour by a hyphen, a slash or an operator (``infra-red``, ``red/blue``, ``4-5``) is not whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .numerals import CURRENCIES, numbers_of
from .units import unit_of

_LEXED = re.compile(
    r"\d+(?:[.,'_:/-]\d+)*"  # a time, a date, a ratio
    r"|[^\W\d_](?:[^\W_]|_(?=\w))*(?:'[^\W\d_]+)*(?:\^[-+]?\d+)?"
    r"|\S"
)
_PUNCTUATION = frozenset(".,;:!?\"'()[]{}*_~`|\\#…—" + CURRENCIES)
_JOINING = frozenset("-/+×÷^&@_\\√")
_OPERATORS = frozenset("-/+×÷^*")
_BOUNDS = frozenset(
    ("over", "under", "above", "below", "least", "most", "than", "exceeding", "beyond", *"<>≤≥≠±")
)
_LONGEST_GAP = 8
_RANGING = frozenset(("and", "or", "to", "through", "x", "by"))
_MORE = frozenset(("more", "less", "fewer", "greater", "higher", "lower", "above", "below"))
_BREAKS = frozenset('.,;:!?\n…—|()[]"')


@dataclass(frozen=True, slots=True)
class Token:
    """One word, number or sign.

    Attributes:
        key: Key for comparison: case-folded word, ``#`` and a number's value, or a sign.
        text: Text as written.
        gap: Text between it and the token before it.
    """

    key: str
    text: str
    gap: str

    @property
    def is_number(self) -> bool:
        """Whether it is a number."""
        return self.key.startswith("#")

    @property
    def is_word(self) -> bool:
        """Whether it starts with a letter."""
        return self.key[:1].isalpha()

    @property
    def follows_break(self) -> bool:
        """Whether punctuation or a spaced dash separates it from the token before it."""
        return not _BREAKS.isdisjoint(self.gap) or "- " in self.gap


def tokens_of(readable: str) -> list[Token]:
    """Return the tokens of a readable text in order."""
    found: list[tuple[int, int, str]] = []
    at = 0
    for number in numbers_of(readable):
        found += _lexed(readable, at, number.start)
        value = number.value
        found.append((number.start, number.end, f"#{value.numerator:x}/{value.denominator:x}"))
        at = number.end
    found += _lexed(readable, at, len(readable))
    tokens: list[Token] = []
    end = 0
    for start, after, key in found:
        tokens.append(Token(key, readable[start:after], readable[end:start]))
        end = after
    return _with_units(_without_dashes(tokens))


def _lexed(text: str, start: int, end: int) -> list[tuple[int, int, str]]:
    return [
        (match.start(), match.end(), _key(match[0]))
        for match in _LEXED.finditer(text, start, end)
        if match[0] not in _PUNCTUATION
    ]


def _key(word: str) -> str:
    return word.casefold().removesuffix("'s").replace("^", "") if len(word) > 1 else word.casefold()


def _without_dashes(tokens: Sequence[Token]) -> list[Token]:
    """Return the tokens without hyphens and dashes between words, which move to the gaps."""
    kept: list[Token] = []
    gap = ""
    for index, token in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if token.key == "-" and _is_between_words(kept, following):
            gap = (gap + token.gap + token.text)[-_LONGEST_GAP:]
            continue
        kept.append(replace(token, gap=gap + token.gap) if gap else token)
        gap = ""
    return kept


def _is_between_words(kept: Sequence[Token], following: Token | None) -> bool:
    if not kept or following is None or not (following.is_word and len(following.key) > 1):
        return not kept and (following is None or following.gap != "" or len(following.key) > 1)
    return kept[-1].is_number or (kept[-1].is_word and len(kept[-1].key) > 1)


def _with_units(tokens: Sequence[Token]) -> list[Token]:
    """Return the tokens with units after numbers replaced by their short names."""
    named = list(tokens)
    for index in range(1, len(named)):
        unit = unit_of(named[index].text) if named[index - 1].is_number else None
        if unit is not None and not named[index].follows_break:
            named[index] = replace(named[index], key=unit)
    return named


def is_unit(tokens: Sequence[Token], at: int) -> bool:
    """Return whether a token is the unit of the number before it."""
    if not 0 < at < len(tokens) or not tokens[at - 1].is_number or tokens[at].follows_break:
        return False
    return unit_of(tokens[at].key) is not None


def stands_whole(tokens: Sequence[Token], start: int, end: int) -> bool:
    """Return whether the tokens ``start`` to ``end`` are not part of a longer phrase."""
    if start > 0 and _are_joined(tokens[start - 1], tokens[start]):
        return False
    if end < len(tokens) and _are_joined(tokens[end - 1], tokens[end]):
        return False
    return not (tokens[start].is_number and _is_part_of_quantity(tokens, start, end))


def _are_joined(left: Token, right: Token) -> bool:
    if right.gap:
        return not _JOINING.isdisjoint(right.gap) and not any(map(str.isspace, right.gap))
    if left.text[-1:].isdigit() and right.is_word:
        return not left.is_number or unit_of(right.text) is None
    is_mark = not (left.is_word or left.is_number or right.is_word or right.is_number)
    is_combining = unicodedata.category(right.key[0]).startswith("M")
    is_combining = is_combining or unicodedata.category(left.key[0]).startswith("M")
    return is_mark or is_combining or left.key in _JOINING or right.key in _JOINING | {"="}


def _is_part_of_quantity(tokens: Sequence[Token], start: int, end: int) -> bool:
    """Return whether a number is part of ``4 to 5``, ``4 h 30 min``, ``2 + 4`` or the like."""
    before = tokens[start - 1] if start else None
    if before is not None and not tokens[start].follows_break:
        if before.key in _BOUNDS or (before.key in _OPERATORS and start > 1):
            return True
        place = start - 2 if before.key in _RANGING else start - 1
        place -= is_unit(tokens, place)
        if place >= 0 and tokens[place].is_number:
            return True
    end += is_unit(tokens, end)
    if end >= len(tokens) or tokens[end].follows_break:
        return False
    if tokens[end].is_number or tokens[end].key in _OPERATORS or tokens[end].key == "±":
        return tokens[end].is_number or end + 1 < len(tokens)
    following = tokens[end + 1] if end + 1 < len(tokens) else None
    is_open = following is not None and (following.is_number or following.key in _MORE)
    return tokens[end].key in _RANGING and is_open
