"""Identification of the option in an answer: by letter, by text, or by both if they agree.

An option is named as a whole quantity or a whole phrase. Numbers are compared as numbers with
their units; the longest option wins (``dark blue`` over ``blue``); denied options do not count. An
answer that names two different options names none, unless it states which one is the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .denial import Mention, affirmed
from .mentions import letter_mentions, text_mentions
from .option_labels import Options, read_options
from .phrases import Token, tokens_of
from .text_forms import plain_text, readable_text
from .verdicts import leading_truth, truth_of

_LETTER_ALONE = re.compile(
    r"\W{0,8}(?:the\s+)?(?:(?:final|correct|right|best)\s+)?(?:(?:option|choice|answer|letter)\b\W{0,8}"
    r"(?:is\b\W{0,8})?(?:(?:option|choice|letter)\b\W{0,4})?)?([a-z])[\W_]*",
    re.IGNORECASE,
)
_LEADING_LETTER = re.compile(r"[\W_]{0,8}([A-Za-z])\s{0,2}[*_]{0,3}\s{0,2}(?:[.):]|-\s)")
_LABELLED = re.compile(r"[\W_]{0,8}([A-Za-z])[\W_]{1,6}(?=[^\W_]|[$\\(])", re.IGNORECASE)
_COPULAS = frozenset(("is", "was", "be", "must", "should", "would"))
_TRUTHS = frozenset(("yes", "no", "true", "false", "correct", "incorrect", "right", "wrong"))


def chosen(answer: str, choices: tuple[str, ...]) -> int | None:
    """Return the index of the option that an answer names; None for none or several.

    >>> chosen("not red but blue", ("red", "blue")), chosen("4.5", ("2", "4"))
    (1, None)
    """
    options = read_options(choices)
    readable = readable_text(answer).strip()
    whole = _named_by_whole(plain_text(answer), choices, options)
    if len(whole) == 1 or (whole and options.are_labelled):
        return whole.pop() if len(whole) == 1 else None
    if (exact := _named_by_both(readable, options)) is not None:
        return exact
    if (truth := _named_by_truth(answer, options)) is not None:
        return truth
    if (letter := _LETTER_ALONE.fullmatch(readable)) is not None:
        return _single(letter[1], options)
    tokens = tokens_of(readable)
    in_text = text_mentions(tokens, options.texts)
    by_letter = [
        mention
        for mention in letter_mentions(tokens, options)
        if not _is_of_text(tokens, mention, in_text, options)
    ]
    both = sorted({*in_text, *by_letter}, key=lambda mention: (mention.start, mention.end))
    if announced := _announced(tokens, affirmed(tokens, both)):
        return announced.pop() if len(announced) == 1 else None
    texts, letters = (_places(affirmed(tokens, found)) for found in (in_text, by_letter))
    if (leading := _LEADING_LETTER.match(readable)) is not None:
        return _led_by(options.place(leading[1]), texts, letters)
    return next((named.pop() for named in (texts, letters) if len(named) == 1), None)


def _named_by_both(readable: str, options: Options) -> int | None:
    """Return the option whose letter and whole text are the answer: ``E. either A or B``."""
    found = _LABELLED.match(readable)
    place = options.place(found[1]) if found is not None else None
    if found is None or place is None or place >= len(options.texts):
        return None
    return (
        place if plain_text(readable[found.end() :]) == plain_text(options.texts[place]) else None
    )


def _single(letter: str, options: Options) -> int | None:
    """Return the option whose text is the letter, else the one labelled with it."""
    texts = [plain_text(text) for text in options.texts]
    if not options.are_labelled and texts.count(letter.casefold()) == 1:
        return texts.index(letter.casefold())
    return options.place(letter)


def _is_of_text(
    tokens: Sequence[Token], letter: Mention, in_text: Sequence[Mention], options: Options
) -> bool:
    """Return whether a letter is part of an option's text: ``points A and B``, ``A hexagon``."""
    for mention in in_text:
        if mention.start <= letter.start < mention.end and mention.end - mention.start > 1:
            return True
        is_next = mention.start == letter.end and not tokens[mention.start].gap.strip()
        if is_next and options.texts[mention.option].casefold().startswith(
            tokens[letter.start].key + " "
        ):
            return True
    return False


def _led_by(place: int | None, texts: set[int], letters: set[int]) -> int | None:
    """Return the option of an answer such as ``B. blue``; None where letter and text differ."""
    if place is not None and place not in letters:  # "A) is wrong, B) it is", "b. blue"
        letters = letters or {place}
    if len(letters) != 1 or (texts and not letters <= texts):
        return None
    return letters.pop() if place is not None else None


def _places(mentions: Iterable[Mention]) -> set[int]:
    return {mention.option for mention in mentions}


def _named_by_whole(plain: str, choices: Sequence[str], options: Options) -> set[int]:
    """Return the options whose text or label is the whole answer."""
    texts = [plain_text(text) for text in options.texts]
    whole = [plain_text(choice) for choice in choices]
    named = {place for place, pair in enumerate(zip(texts, whole, strict=True)) if plain in pair}
    if options.are_labelled and (place := options.place(plain)) is not None:
        return {place} if plain.isalpha() else named | {place}
    return named


def _named_by_truth(answer: str, options: Options) -> int | None:
    """Return the option of a yes or no; None where options or answer are not yes or no."""
    truths = [truth_of(text) if plain_text(text) in _TRUTHS else None for text in options.texts]
    if truths.count(True) != 1 or truths.count(False) != 1:
        return None
    truth = truth_of(answer) if len(truths) == 2 else leading_truth(answer)
    return truths.index(truth) if truth is not None else None


def _announced(tokens: Sequence[Token], mentions: Sequence[Mention]) -> set[int]:
    """Return the options that follow ``answer is`` or ``answer:`` in an answer."""
    announced: set[int] = set()
    for at in range(len(tokens) - 2, -1, -1):
        following = tokens[at + 1]
        if tokens[at].key == "answer" and (following.key in _COPULAS or ":" in following.gap):
            end = None
            for mention in mentions:
                if mention.start <= at:
                    continue
                between = tokens[end : mention.start] if end is not None else ()
                if any(token.key not in ("or", "and", "option") for token in between):
                    break
                announced.add(mention.option)
                end = mention.end
            break
    return announced
