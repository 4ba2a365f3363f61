"""Grading of answers: one strict, deterministic grader per kind of answer.

A grader reads the answer only: neither part of a longer number counts, nor an option's letter
within a word. INTEGER takes the last integer and NUMBER the last number of the answer (`numerals`),
NUMBER within a relative tolerance in exact arithmetic; CHOICE a letter or an option's text
(`options`); BOOLEAN yes or no, or a verdict (`verdicts`); TEXT equality up to case, whitespace,
Unicode form, emphasis and outer punctuation (`text_forms`).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from ..types import AnswerKind, Task
from .numerals import numbers_in
from .options import chosen
from .text_forms import plain_text
from .verdicts import truth_of

Grader = Callable[[Task, str], bool]
"""Returns whether an answer to a task is right."""

_GRADERS: dict[AnswerKind, Grader] = {}


class GradingError(ValueError):
    """A task's own answer cannot be read by the grader of its kind."""


def register_grader(kind: AnswerKind) -> Callable[[Grader], Grader]:
    """Register the decorated function as the grader of a kind of answer."""

    def register(grader: Grader) -> Grader:
        _GRADERS[kind] = grader
        return grader

    return register


def grade(task: Task, answer: str | None) -> float:
    """Return 1.0 for a right answer, 0.0 for a wrong or missing one.

    Raises:
        GradingError: The task's own answer does not fit its kind.
    """
    if answer is None:
        return 0.0
    return 1.0 if _GRADERS[task.answer_kind](task, answer) else 0.0


def check_gradable(task: Task) -> None:
    """Refuse a task whose own answer would not be graded as right.

    Raises:
        GradingError: The grader does not accept the task's own answer.
    """
    if grade(task, task.answer) != 1.0:
        raise GradingError(f"{task.id}: {task.answer!r} is not of the kind {task.answer_kind}")


@register_grader(AnswerKind.TEXT)
def _is_same_text(task: Task, answer: str) -> bool:
    return plain_text(answer) == plain_text(task.answer)


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
    """Return the last integer in a text; None without one.

    >>> last_integer("about twenty-one, no: 1,024.0")
    1024
    """
    integers = [number for number in numbers_in(text) if number.denominator == 1]
    return int(integers[-1]) if integers else None


def last_number(text: str) -> Fraction | None:
    """Return the last number in a text, exactly, ignoring a percent sign; None without one.

    >>> str(last_number("a length of 2 1/2 cm^2"))
    '5/2'
    """
    numbers = numbers_in(text)
    return numbers[-1] if numbers else None


def _own_choice(task: Task) -> int:
    index = chosen(task.answer, task.choices)
    if index is None:
        raise GradingError(f"{task.id}: the true answer {task.answer!r} is none of {task.choices}")
    return index
