"""Denial of options mentioned in a sentence: ``not red``, ``anything but red``.

A denial extends from its word to the first option after it within the clause, and to those added by
``or``, ``nor`` and ``and``; for ``neither`` also to those added by a comma. A clause ends at
punctuation and at words such as ``but``. Words after an option may deny it as well: ``red is
wrong``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .phrases import Token

_DENYING = frozenset(
    (
        *("not", "no", "never", "neither", "nor", "cannot", "without", "except", "excluding"),
        *("excludes", "excluded", "than", "unlike", "hardly", "instead", "isnt", "dont", "doesnt"),
    )
)
_DENYING_PAIRS = frozenset(
    (
        *((word, "but") for word in ("anything", "everything", "all", "anywhere", "any", "thing")),
        ("far", "from"),
    )
)
_CLAUSE_WORDS = frozenset(
    (
        *("but", "because", "since", "so", "though", "although", "however", "whereas", "while"),
        *("yet", "therefore", "thus", "hence", "then"),
    )
)
_ADDING = frozenset(("or", "nor", "and", "a", "an", "the", "either", "option", "in", "on"))
_NO_DENIAL_AFTER = frozenset(("doubt", "question", "wonder", "only", "just", "problem"))
_COPULAS = frozenset(("is", "are", "was", "were", "be", "can", "does", "do", "seems", "looks"))
_CLOSING = " )]*'\""
_REFUSALS = frozenset(("wrong", "incorrect", "false", "excluded", "impossible", "out", "untrue"))


@dataclass(frozen=True, slots=True)
class Mention:
    """A mention of an option in a text: tokens ``start`` to ``end``."""

    option: int
    start: int
    end: int


def affirmed(tokens: Sequence[Token], mentions: Sequence[Mention]) -> list[Mention]:
    """Return the mentions that a text does not deny, in order."""
    kept: list[Mention] = []
    before: Mention | None = None
    was_denied = was_neither = False
    for mention in mentions:
        is_denied, is_neither = _denial_before(tokens, mention, before)
        if before is not None and _is_added(tokens, before, mention, by_comma=was_neither):
            is_denied, is_neither = was_denied, was_neither
        if not is_denied and not _is_refused_after(tokens, mention.end):
            kept.append(mention)
        before, was_denied, was_neither = mention, is_denied, is_neither
    return kept


def _denial_before(
    tokens: Sequence[Token], mention: Mention, before: Mention | None
) -> tuple[bool, bool]:
    """Return whether a word before a mention denies it, and whether that is ``neither``."""
    first = before.end if before is not None else 0
    at = mention.start - 1
    while at >= first and not tokens[at + 1].follows_break:
        key = tokens[at].key
        if at > 0 and (tokens[at - 1].key, key) in _DENYING_PAIRS:
            return True, False
        if key in _CLAUSE_WORDS:
            return False, False
        if (key in _DENYING or key.endswith("n't")) and not _is_idle(tokens, at):
            return True, key == "neither"
        at -= 1
    return False, False


def _is_idle(tokens: Sequence[Token], at: int) -> bool:
    """Return whether a denying word denies nothing here: ``no doubt``, ``not only``."""
    return at + 1 < len(tokens) and tokens[at + 1].key in _NO_DENIAL_AFTER


def _is_added(
    tokens: Sequence[Token], before: Mention, mention: Mention, *, by_comma: bool
) -> bool:
    if mention.start < before.end:  # two options with the same text
        return True
    between = [token.key for token in tokens[before.end : mention.start]]
    is_broken = any(token.follows_break for token in tokens[before.end : mention.start + 1])
    if not between:
        return by_comma and is_broken
    return all(key in _ADDING for key in between) and (by_comma or not is_broken)


def _is_refused_after(tokens: Sequence[Token], at: int) -> bool:
    """Return whether the words after an option deny it: ``is not``, ``isn't``, ``is wrong``."""
    following = tokens[at : at + 3]
    if not following or (following[0].follows_break and following[0].gap.strip(_CLOSING)):
        return False
    first, *rest = (token.key for token in following)
    if first.endswith("n't") or first == "cannot":
        return True
    if first not in _COPULAS or not rest or following[1].follows_break:
        return False
    return rest[0] in _REFUSALS or rest[0] == "not"
