"""Truth value of a text: yes and no, and verdicts (``That is right``).

A leading yes or no takes precedence. Elsewhere ``yes`` and ``no`` count, and ``true``, ``false``,
``right``, ``wrong``, ``correct`` and ``incorrect`` count as verdicts only: alone in a clause or
after ``is``. In ``on the right``, ``the wrong side`` or ``right next to it`` they denote a
position. The ``no`` of ``there is no cat`` counts where the text has no other verdict. A text with
verdicts of both kinds has no truth value.
"""

from __future__ import annotations

from collections.abc import Sequence

from .phrases import Token, tokens_of
from .text_forms import readable_text

_ANSWERS = {
    **dict.fromkeys(("yes", "yeah", "yep", "yup"), True),
    **dict.fromkeys(("no", "nope", "nah"), False),
}
_VERDICTS = {
    **dict.fromkeys(("true", "correct", "right"), True),
    **dict.fromkeys(("false", "incorrect", "wrong", "untrue"), False),
}
_PLACES = frozenset(("right", "wrong"))
"""Verdicts that also denote a position, before a noun phrase or a place."""
_LETTERS = {"y": True, "t": True, "n": False, "f": False}
_COPULAS = frozenset(
    (
        *("is", "are", "was", "were", "be", "being", "seems", "seem", "appears", "looks", "holds"),
        *("you're", "they're", "as", "remains", "evaluates", "answer", "says", "say"),
    )
)
_BEFORE_COPULA = frozenset(
    ("would", "must", "can", "could", "may", "might", "should", "will", "has", "have", "to", "been")
)
_DEGREES = frozenset(
    (
        *("not", "never", "quite", "really", "absolutely", "definitely", "entirely", "completely"),
        *("totally", "indeed", "certainly", "actually", "clearly", "probably", "also", "therefore"),
        *("fully", "all", "always", "partly", "just", "simply", "only", "evidently"),
    )
)
_CLAUSE_STARTS = frozenset(
    ("because", "since", "so", "as", "and", "but", "for", "if", "when", "that", "though", "here")
)
_OPINIONS = frozenset(("think", "believe", "say", "agree", "consider", "find", "expect", "suppose"))
_FARTHEST_OPINION = 12
_STATEMENTS = frozenset(("statement", "claim", "sentence", "assertion", "caption", "proposition"))
_ALTERNATIVES = frozenset(("and", "or", "nor", "/"))
_IDIOMS = frozenset(("doubt", "question", "wonder", "matter", "longer"))


def truth_of(text: str) -> bool | None:
    """Return whether a text affirms (True) or denies (False); None for neither or both.

    >>> truth_of("No, it is on the right."), truth_of("It is on the right."), truth_of("maybe")
    (False, None, None)
    """
    tokens = _words(text)
    if len(tokens) == 1 and tokens[0].key in _LETTERS:
        return _LETTERS[tokens[0].key]
    for start in _answer_starts(tokens):
        if (lead := _leading(tokens, start)) is not None:
            return lead
    places = range(len(tokens))
    verdicts = {verdict for at in places if (verdict := _verdict_at(tokens, at)) is not None}
    if not verdicts and any(_is_absence(tokens, at) for at in places):
        return False
    return verdicts.pop() if len(verdicts) == 1 else None


def leading_truth(text: str) -> bool | None:
    """Return the truth value of the yes or no that starts a text; None without one."""
    return _leading(_words(text), 0)


def _words(text: str) -> list[Token]:
    tokens = tokens_of(readable_text(text))
    return [token for token in tokens if token.is_word or token.key == "/"]


def _answer_starts(tokens: Sequence[Token]) -> list[int]:
    """Return the places after ``answer is``, last first, and the start of the text."""
    starts = [0]
    for at, token in enumerate(tokens[:-1]):
        if token.key == "answer" and (tokens[at + 1].key == "is" or ":" in tokens[at + 1].gap):
            starts.append(at + 1 + (tokens[at + 1].key == "is"))
    return starts[::-1]


def _leading(tokens: Sequence[Token], start: int) -> bool | None:
    """Return the verdict at the start of a text; ``yes or no`` and ``no doubt`` are none."""
    if start >= len(tokens):
        return None
    key = tokens[start].key
    following = tokens[start + 1] if start + 1 < len(tokens) else None
    if following is not None and (following.key in _ALTERNATIVES or _is_joined(following)):
        return None
    if key in _ANSWERS:
        return None if following is not None and following.key in _IDIOMS else _ANSWERS[key]
    if key in _VERDICTS and (following is None or following.follows_break):
        return _VERDICTS[key]
    return None


def _verdict_at(tokens: Sequence[Token], at: int) -> bool | None:
    """Return the verdict of a word in its context; None without one."""
    key = tokens[at].key
    following = tokens[at + 1] if at + 1 < len(tokens) else None
    if _is_joined(tokens[at]) or (following is not None and _is_joined(following)):
        return None
    if key in _ANSWERS:
        is_denied = at > 0 and tokens[at - 1].key == "not"
        return None if _is_determiner(tokens, at) else _ANSWERS[key] != is_denied
    if key not in _VERDICTS or not _ends_clause(following, is_place=key in _PLACES):
        return None
    predicate = _predicate_start(tokens, at)
    if predicate is None:
        return None
    denials = sum(_denies(token.key) for token in tokens[predicate:at])
    return (_VERDICTS[key] is True) == ((denials + _is_doubted(tokens, predicate)) % 2 == 0)


def _is_determiner(tokens: Sequence[Token], at: int) -> bool:
    """Return whether a word is the ``no`` of a noun: ``there is no cat``."""
    following = tokens[at + 1] if at + 1 < len(tokens) else None
    if tokens[at].key != "no" or following is None or following.follows_break:
        return False
    return following.key not in _CLAUSE_STARTS | _ALTERNATIVES


def _is_absence(tokens: Sequence[Token], at: int) -> bool:
    return _is_determiner(tokens, at) and tokens[at + 1].key not in _IDIOMS


def _is_joined(token: Token) -> bool:
    return token.gap == "-"


def _ends_clause(following: Token | None, *, is_place: bool) -> bool:
    if following is None or following.follows_break or following.key in _CLAUSE_STARTS:
        return True
    return not is_place or following.key in _STATEMENTS


def _predicate_start(tokens: Sequence[Token], at: int) -> int | None:
    """Return the start of the predicate of a verdict; None where the word is not a predicate."""
    first = at
    while first > 0 and not tokens[first].follows_break and tokens[first - 1].key in _DEGREES:
        first -= 1
    if first == 0 or tokens[first].follows_break:
        following = tokens[at + 1] if at + 1 < len(tokens) else None
        is_whole = following is None or following.follows_break
        return first if is_whole or (following and following.key in _CLAUSE_STARTS) else None
    before = tokens[first - 1].key
    if before in _COPULAS or _denies(before) or tokens[first - 1].text.lower().endswith("'s"):
        first -= 1
        while first > 0 and _belongs_to_copula(tokens[first - 1].key):
            first -= 1
        return first
    is_statement = at + 1 < len(tokens) and tokens[at + 1].key in _STATEMENTS
    return first if before in ("a", "an") and is_statement else None


def _belongs_to_copula(key: str) -> bool:
    return key in _BEFORE_COPULA or _denies(key)


def _denies(key: str) -> bool:
    return key in ("not", "never", "isnt", "cannot") or key.endswith("n't")


def _is_doubted(tokens: Sequence[Token], predicate: int) -> bool:
    """Return whether the clause denies an opinion: ``I do not think that it is``."""
    at = predicate
    while at > max(0, predicate - _FARTHEST_OPINION) and not tokens[at].follows_break:
        at -= 1
        if tokens[at].key in _OPINIONS and at > 0:
            return _denies(tokens[at - 1].key)
    return False
