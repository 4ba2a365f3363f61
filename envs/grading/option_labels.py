"""Parsing of options in data sets: texts alone, or with labels (``A. red``, ``(B) blue``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LABEL = re.compile(r"\(?\s*([A-Za-z])\s*(?:[).:]|-\s)\s*(?=\S)")
_DIGIT_LABEL = re.compile(r"(?:\((\d{1,2})\)\s*|(\d{1,2})\s*[).]\s+)(?=\S)")


@dataclass(frozen=True, slots=True)
class Options:
    """The parsed options of a task.

    Attributes:
        texts: Texts without labels.
        labels: Labels by which an answer may name them, upper case, in the options' order.
        are_labelled: Whether the options have labels of their own (``A. red``).
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    are_labelled: bool

    def place(self, label: str) -> int | None:
        """Return the index of the option with a label; None without one."""
        return self.labels.index(label.upper()) if label.upper() in self.labels else None


def read_options(choices: Sequence[str]) -> Options:
    """Return options split into labels and texts; letters from A where they have none.

    >>> read_options(("(C) red", "(A) blue", "(B) green"))
    Options(texts=('red', 'blue', 'green'), labels=('C', 'A', 'B'), are_labelled=True)
    """
    choices = [choice.strip() for choice in choices]
    for pattern in (_LABEL, _DIGIT_LABEL):
        found = [pattern.match(choice) for choice in choices]
        parts = [(part[part.lastindex or 0].upper(), part.end()) for part in found if part]
        if len(parts) == len(choices) and _are_labels([label for label, _ in parts]):
            pairs = zip(choices, parts, strict=True)
            texts = tuple(choice[end:].strip() for choice, (_, end) in pairs)
            return Options(texts, tuple(label for label, _ in parts), are_labelled=True)
    letters = tuple(chr(ord("A") + place) for place in range(min(len(choices) or 26, 26)))
    return Options(tuple(choices), letters, are_labelled=False)


def _are_labels(labels: Sequence[str]) -> bool:
    """Return whether initials are labels: distinct, and of the first letters or a run of digits.

    ``A. Smith`` and ``J. Doe`` are names, ``1. red`` and ``3. blue`` are not labelled.
    A letter may be missing, as in A, C, D.
    """
    if len(labels) < 2 or len(set(labels)) != len(labels):
        return False
    if labels[0].isdecimal():
        places = sorted(int(label) for label in labels)
        return places[0] in (0, 1) and places[-1] - places[0] == len(labels) - 1
    last = max(ord(label) - ord("A") for label in labels)
    return last < 2 * len(labels) or ("A" in labels and last < 8)
