"""Whether an answer is right: one grader for each kind of answer, strict and free of judgement.

A grader reads the answer and nothing else: no part of a longer number counts, no option's letter
within a word. Rules: INTEGER takes the last integer (digits, thousands commas, a trailing ``.0``,
number words); NUMBER the last number, within a relative tolerance in exact arithmetic; CHOICE a
letter or an option's text; BOOLEAN yes or no, true or false; TEXT equality up to case and spaces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from .numerals import numbers_in
from .types import AnswerKind, Task

Grader = Callable[[Task, str], bool]
"""Says whether an answer to a task is right."""

_GRADERS: dict[AnswerKind, Grader] = {}


class GradingError(ValueError):
    """A task's own answer cannot be read by the grader of its kind."""


def register_grader(kind: AnswerKind) -> Callable[[Grader], Grader]:
    """Make the decorated function the grader of a kind of answer."""

    def register(grader: Grader) -> Grader:
        _GRADERS[kind] = grader
        return grader

    return register


def grade(task: Task, answer: str | None) -> float:
    """Give 1.0 for a right answer, 0.0 for a wrong one or none.

    Raises:
        GradingError: The task's own answer does not fit its kind.
    """
    if answer is None:
        return 0.0
    return 1.0 if _GRADERS[task.answer_kind](task, answer) else 0.0


def check_gradable(task: Task) -> None:
    """Refuse a task whose own answer would not be graded as right.

    Raises:
        GradingError: So it is.
    """
    if grade(task, task.answer) != 1.0:
        raise GradingError(f"{task.id}: {task.answer!r} is no answer of kind {task.answer_kind}")


@register_grader(AnswerKind.TEXT)
def _is_same_text(task: Task, answer: str) -> bool:
    return _plain(answer) == _plain(task.answer)


@register_grader(AnswerKind.INTEGER)
def _is_same_integer(task: Task, answer: str) -> bool:
    truth = last_integer(task.answer)
    if truth is None:
        raise GradingError(f"{task.id}: the true answer {task.answer!r} holds no integer")
    return last_integer(answer) == truth


@register_grader(AnswerKind.NUMBER)
def _is_near_number(task: Task, answer: str) -> bool:
    truth = last_number(task.answer)
    if truth is None:
        raise GradingError(f"{task.id}: the true answer {task.answer!r} holds no number")
    given = last_number(answer)
    if given is None:
        return False
    tolerance = Fraction(repr(float(task.tolerance)))  # 0.05 is 1/20, not its nearest double
    return abs(given - truth) <= tolerance * abs(truth)


@register_grader(AnswerKind.CHOICE)
def _is_same_choice(task: Task, answer: str) -> bool:
    truth = _own_choice(task)
    return chosen(answer, task.choices) == truth


@register_grader(AnswerKind.BOOLEAN)
def _is_same_truth(task: Task, answer: str) -> bool:
    truth = truth_of(task.answer)
    if truth is None:
        raise GradingError(f"{task.id}: the true answer {task.answer!r} is neither yes nor no")
    return truth_of(answer) == truth


def last_integer(text: str) -> int | None:
    """Give the last integer that a text names, None without one.

    >>> last_integer("about twenty-one, no: 1,024.0")
    1024
    """
    integers = [number for number in numbers_in(text) if number.denominator == 1]
    return int(integers[-1]) if integers else None


def last_number(text: str) -> Fraction | None:
    """Give the last number that a text names, exactly; a percent sign is left aside."""
    ratio = re.fullmatch(r"\s*(-?\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if ratio is not None:
        return Fraction(int(ratio[1]), int(ratio[2])) if int(ratio[2]) else None
    numbers = numbers_in(text)
    return numbers[-1] if numbers else None


_DENIED = re.compile(r"(?:\bnot|n['\u2019]t|\bnever) (?:true|correct|right)\b")
_VERDICTS = {"yes": True, "true": True, "correct": True, "right": True} | {
    "no": False,
    "false": False,
    "incorrect": False,
    "wrong": False,
}
_LETTER_VERDICTS = {"y": True, "t": True, "n": False, "f": False}


def truth_of(text: str) -> bool | None:
    """Give what a text affirms or denies; None where it says neither, or both.

    >>> truth_of("No, that is not true."), truth_of("maybe")
    (False, None)
    """
    plain = _DENIED.sub(" false", _plain(text))
    words = re.findall(r"[a-z]+", plain)
    if len(words) == 1 and words[0] in _LETTER_VERDICTS:
        return _LETTER_VERDICTS[words[0]]
    verdicts = {_VERDICTS[word] for word in words if word in _VERDICTS}
    return verdicts.pop() if len(verdicts) == 1 else None


def chosen(answer: str, choices: tuple[str, ...]) -> int | None:
    """Give the index of the option that an answer names, None where it names none or several.

    Read in this order: the option's text as the whole answer, a letter alone, a letter before a
    mark or after "answer is", one option's text within a sentence, one capital letter within it.
    """
    options = [_plain(choice) for choice in choices]
    plain = _plain(answer).strip(" .\"'`*()")
    if options.count(plain) == 1:
        return options.index(plain)
    if (letter := _LETTER.fullmatch(answer.strip())) is not None:
        return _index(letter[1], len(choices))
    if (letter := _LABELLED.match(answer.strip())) is not None:
        index = _index(letter[1], len(choices))
        named = _named(_plain(answer[letter.end() :]), options)
        return index if named in (None, index) else None
    if (letter := _ANNOUNCED.search(answer)) is not None:
        return _index(letter[1], len(choices))
    if (named := _named(plain, options)) is not None:
        return named
    letters = {_index(letter, len(choices)) for letter in re.findall(r"\b[A-Z]\b", answer)} - {None}
    return letters.pop() if len(letters) == 1 else None


_LETTER = re.compile(r"\W*(?:(?:option|choice|answer)\W+(?:is\W+)?)?([a-z])\W*", re.IGNORECASE)
_LABELLED = re.compile(r"\W*([A-Z])\s*[.):]")
_ANNOUNCED = re.compile(r"\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)\s*(?:is|:)?\W{0,4}([A-Z])\b")


def _named(plain: str, options: list[str]) -> int | None:
    """Which single option's text stands in a sentence; one within a longer one does not count."""
    rest = plain
    found: list[int] = []
    for index, option in sorted(enumerate(options), key=lambda item: -len(item[1])):
        pattern = rf"(?<!\w){re.escape(option)}(?!\w)"
        if option and re.search(pattern, rest):
            found.append(index)
            rest = re.sub(pattern, "\0", rest)
    return found[0] if len(found) == 1 else None


def _own_choice(task: Task) -> int:
    index = chosen(task.answer, task.choices)
    if index is None:
        raise GradingError(f"{task.id}: the true answer {task.answer!r} is none of {task.choices}")
    return index


def _index(letter: str, count: int) -> int | None:
    """The place of an option's letter; any letter of the alphabet where no options are listed."""
    place = ord(letter.upper()) - ord("A")
    return place if 0 <= place < (count or 26) else None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
