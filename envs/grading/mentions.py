"""Mentions of options in an answer: by a whole phrase or quantity, or by a letter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from .denial import Mention
from .option_labels import Options
from .phrases import Token, is_unit, stands_whole, tokens_of
from .text_forms import readable_text
from .units import unit_of

_ARTICLES = frozenset(("a", "an", "the"))
_BEFORE_LETTER = frozenset(("option", "choice", "answer", "letter", "is"))
_AFTER_LETTER = frozenset(
    (
        *("is", "was", "are", "isn't", "because", "since", "as", "and", "or", "nor", "not", "but"),
        *("so", "shows", "matches", "fits", "would", "seems", "looks", "cannot", "can", "has"),
    )
)

_CLAUSE_WORDS = frozenset(("because", "since", "so", "but", "as", "and", "or", "not"))

_Phrases = dict[str, list[tuple[tuple[str, ...], int, bool]]]


def text_mentions(tokens: Sequence[Token], texts: Sequence[str]) -> list[Mention]:
    """Return the mentions of options by their whole text, the longest at each position."""
    phrases = _phrases(texts)
    mentions: list[Mention] = []
    at = 0
    while at < len(tokens):
        longest = 0
        for keys, option, is_bare in phrases.get(tokens[at].key, ()):
            if len(keys) < longest:
                break
            if _is_here(tokens, at, keys) and not (is_bare and _says_of_what(tokens, at + 1)):
                mentions.append(Mention(option, at, at + len(keys)))
                longest = len(keys)
        at += longest or 1
    return mentions


def letter_mentions(tokens: Sequence[Token], options: Options) -> list[Mention]:
    """Return the mentions of options by their letters (or numbers, if they are labels)."""
    of_text = {text.strip(): place for place, text in enumerate(options.texts) if len(text) == 1}
    mentions: list[Mention] = []
    for at, token in enumerate(tokens):
        place = of_text.get(token.text, options.place(token.text))
        if place is not None and len(token.text) <= 2 and _stands_for_option(tokens, at):
            mentions.append(Mention(place, at, at + 1))
    return mentions


def _phrases(texts: Sequence[str]) -> _Phrases:
    """Return the options' tokens by first token, longest first.

    A number may omit the unit or noun that all options share, which the third value marks.
    """
    read = [_keys(text) for text in texts]
    nouns = {
        tuple(key.removesuffix("s") for key in keys[1:])
        for keys in read
        if keys and keys[0].startswith("#")
    }
    numbers = [keys[:1] for keys in read]
    counted = [keys for keys in read if keys and keys[0].startswith("#")]
    is_bare = len(nouns) == 1 and all(map(_is_quantity, counted))
    bare = [keys[:1] if is_bare and keys in counted else () for keys in read]
    found: _Phrases = defaultdict(list)
    for option, (keys, number) in enumerate(zip(read, bare, strict=True)):
        if len(keys) > 1 or (keys and len(keys[0]) > 1) or (keys and not keys[0].isascii()):
            found[keys[0]].append((keys, option, False))
        if number and numbers.count(number) == 1:
            found[number[0]].append((number, option, True))
    for phrases in found.values():
        phrases.sort(key=lambda phrase: -len(phrase[0]))
    return dict(found)


def _keys(text: str) -> tuple[str, ...]:
    keys = tuple(token.key for token in tokens_of(readable_text(text)))
    return keys[1:] if len(keys) > 1 and keys[0] in _ARTICLES else keys


def _is_quantity(keys: Sequence[str]) -> bool:
    """Return whether tokens are a number and its unit or noun; not so in ``2 x``."""
    if len(keys) < 2 or not keys[0].startswith("#"):
        return False
    return all(unit_of(key) or key == "/" or (key.isalpha() and len(key) > 1) for key in keys[1:])


def _says_of_what(tokens: Sequence[Token], at: int) -> bool:
    """Return whether a word after a number names what it counts or measures."""
    if at >= len(tokens) or tokens[at].follows_break or tokens[at].key in _CLAUSE_WORDS:
        return False
    return tokens[at].is_word or is_unit(tokens, at)


def _is_here(tokens: Sequence[Token], at: int, keys: Sequence[str]) -> bool:
    end = at + len(keys)
    if tuple(token.key for token in tokens[at:end]) != tuple(keys):
        return False
    return stands_whole(tokens, at, end)


def _stands_for_option(tokens: Sequence[Token], at: int) -> bool:
    """Return whether a letter names an option, not an article or part of a longer word."""
    token = tokens[at]
    before = tokens[at - 1].key if at else ""
    following = tokens[at + 1] if at + 1 < len(tokens) else None
    if not stands_whole(tokens, at, at + 1):
        return False
    if token.is_number or token.text.islower():
        in_brackets = token.gap.endswith("(") and following is not None
        in_brackets = in_brackets and following is not None and following.gap.startswith(")")
        return (before in _BEFORE_LETTER and before != "is") or in_brackets
    if token.text not in "AI" or before in _BEFORE_LETTER or following is None:
        return True
    is_article = following.text[:1].islower() and not following.gap.strip()
    return not is_article or following.key in _AFTER_LETTER
