"""The answer of a row: its kind, its options, and the right option.

Options are a list, or a mapping whose keys are letters or numbers, in any order. The answer to
options is a letter or key, an option's text, or (a JSON integer that is neither) its index from 0.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ...grading import last_number
from ...grading.kinds import kind_of
from ...grading.option_labels import read_options
from ...grading.options import chosen
from ...types import AnswerKind
from ..base import SuiteError

_KINDS: dict[str, AnswerKind] = {
    **{kind.value: kind for kind in AnswerKind},
    "int": AnswerKind.INTEGER,
    "count": AnswerKind.INTEGER,
    "float": AnswerKind.NUMBER,
    "bool": AnswerKind.BOOLEAN,
    "yes_no": AnswerKind.BOOLEAN,
    "mcq": AnswerKind.CHOICE,
    "multiple_choice": AnswerKind.CHOICE,
    "string": AnswerKind.TEXT,
}
_INFERRED = "free_form"
_KEY = re.compile(r"\W*(?:(?:option|choice)\W*)?([a-z]|\d{1,2})\W*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """The answer of a row.

    Attributes:
        text: Right answer; for a choice, a text that names the right option.
        kind: Kind of the answer, given or inferred from the answer.
        choices: Options in order; empty without any.
    """

    text: str
    kind: AnswerKind
    choices: tuple[str, ...]


def read_row_answer(row: Mapping[str, Any]) -> RowAnswer:
    """Return a row's answer; ``row["answer"]`` is required.

    Raises:
        SuiteError: The answer, the options or the kind is invalid.
    """
    choices, keys = _options(row)
    text = _text(row["answer"])
    kind = _kind(row, text, choices)
    if kind is AnswerKind.CHOICE and choices:
        text = _naming(row["answer"], text, choices, keys)
    return RowAnswer(text, kind, choices)


def _text(answer: object) -> str:
    if isinstance(answer, bool):
        return "true" if answer else "false"
    if isinstance(answer, float) and not math.isfinite(answer):
        raise SuiteError(f"'answer' is a finite number, got {answer!r}")
    if isinstance(answer, str | int | float):
        return str(answer)
    raise SuiteError(f"'answer' is a text or a number, got {answer!r}")


def _options(row: Mapping[str, Any]) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Return the options in order, and the index of each key of a mapping."""
    given = row.get("options") or ()
    if isinstance(given, dict):
        return _ordered(cast(dict[str, Any], given))
    if not isinstance(given, list | tuple):
        raise SuiteError(f"'options' is a list of texts, got {given!r}")
    return tuple(_option(option) for option in cast(list[Any], given)), {}


def _option(option: object) -> str:
    if not isinstance(option, str | int | float):
        raise SuiteError(f"'options' is a list of texts, one of them is {option!r}")
    return str(option).lower() if isinstance(option, bool) else str(option)


def _ordered(given: Mapping[str, Any]) -> tuple[tuple[str, ...], Mapping[str, int]]:
    """Order a mapping's options by their keys; keys other than A, B, C, … remain as labels.

    Labels also remain where a text could be mistaken for the key of another option.
    """
    labels = [found[1].upper() if (found := _KEY.fullmatch(key)) else "" for key in given]
    texts = [_option(option) for option in given.values()]
    order = _order(labels)
    choices = [texts[at] for at in order]
    keys = [labels[at] for at in order]
    is_clear = all(
        text.upper() not in keys or text.upper() == key
        for key, text in zip(keys, choices, strict=True)
    )
    is_plain = keys == [chr(ord("A") + at) for at in range(len(order))] and is_clear
    if not is_plain and "" not in keys and len(set(keys)) == len(keys):
        choices = [f"{key}. {text}" for key, text in zip(keys, choices, strict=True)]
        if not read_options(choices).are_labelled:
            raise SuiteError(
                "the keys of 'options' are letters from A on, or numbers from 0 or 1 on, "
                f"got {', '.join(map(repr, given))}"
            )
    names = [*enumerate(labels), *enumerate(given)]
    return tuple(choices), {name.casefold(): order.index(at) for at, name in names if name}


def _order(labels: Sequence[str]) -> list[int]:
    """Return the indices sorted by label; unsorted where labels are missing or repeated."""
    places = list(range(len(labels)))
    if len(set(labels)) < len(labels) or "" in labels:
        return places
    if all(label.isdecimal() for label in labels):
        return sorted(places, key=lambda at: int(labels[at]))
    return sorted(places, key=labels.__getitem__) if all(map(str.isalpha, labels)) else places


def _kind(row: Mapping[str, Any], answer: str, choices: Sequence[str]) -> AnswerKind:
    given = row.get("answer_type")
    if given is None or given == _INFERRED:
        return _inferred_kind(row, answer, choices)
    kind = _KINDS.get(str(given))
    if kind is None:
        near = difflib.get_close_matches(str(given), _KINDS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise SuiteError(f"unknown answer_type {given!r}{hint}; one of {', '.join(AnswerKind)}")
    return kind


def _inferred_kind(row: Mapping[str, Any], answer: str, choices: Sequence[str]) -> AnswerKind:
    if choices:
        return AnswerKind.CHOICE
    if isinstance(row["answer"], bool):
        return AnswerKind.BOOLEAN
    kind = AnswerKind.NUMBER if isinstance(row["answer"], float) else kind_of(answer)
    return AnswerKind.NUMBER if kind is AnswerKind.INTEGER and row.get("tolerance") else kind


def _naming(value: object, answer: str, choices: tuple[str, ...], keys: Mapping[str, int]) -> str:
    """Return an answer that the grader reads as the option of a row.

    Raises:
        SuiteError: The row's answer names no option, or several.
    """
    place = keys.get(answer.strip().casefold())
    place = chosen(answer, choices) if place is None else place
    if place is None and _is_index(value, choices):
        place = cast(int, value)
    spellings = (answer, choices[place or 0], chr(ord("A") + (place or 0)))
    named = [text for text in spellings if chosen(text, choices) == place]
    if place is None or not named:
        raise SuiteError(
            f"the answer {answer!r} is none of the options {', '.join(map(repr, choices))}; name "
            "one by its letter, its text or (as a JSON integer) its index from 0"
        )
    return named[0]


def _is_index(value: object, choices: Sequence[str]) -> bool:
    """Return whether a JSON integer is an index from 0; among numeric options it is a value."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(choices):
        return False
    return all(last_number(text) is None for text in choices)
