"""The interface of a nano family: images from a seed, programs, and the reading of their output.

The programs and the reading use the image only; they are the suite's oracle and the source of its
demonstrations. The stored answer comes from the generator's state, never from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from numpy.random import Generator
from PIL import Image

from ...types import AnswerKind, Difficulty
from .canvas import COLOURS
from .sources import Split


@dataclass(frozen=True, slots=True)
class Drawn:
    """One item of a family.

    Attributes:
        picture: Image, RGB.
        question: Question about the image.
        answer: True answer, by the state from which the image was drawn.
        provenance: External sources of the drawing (ink, photograph) by name; ``region``: box of
            the object in question, where there is one.
    """

    picture: Image.Image
    question: str
    answer: str
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])


class Family(Protocol):
    """A kind of question whose need for code is visible only in the image.

    Attributes:
        name: Name of the family.
        phrasings: Phrasings of the question, with ``{colour}`` where one is named.
        colours: Colours that questions name; empty where none is named.
        answer_kind: Kind of the answer.
        choices: Possible answers where they are few; empty otherwise.
        chance: Accuracy of guessing among the answers at hard difficulty.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def phrasings(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def colours(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def answer_kind(self) -> AnswerKind: ...  # noqa: D102
    @property
    def choices(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def chance(self) -> float: ...  # noqa: D102

    def draw(self, rng: Generator, difficulty: Difficulty, split: Split) -> Drawn:
        """Draw an item, determined by the generator's state."""
        ...

    def programs(self, question: str) -> dict[str, str]:
        """Return programs by style: ``exact`` always works, ``loose`` fails on fine detail."""
        ...

    def read(self, text: str, images: Sequence[Image.Image]) -> str:
        """Return the answer from the output of the exact program."""
        ...


def ask(phrasings: Sequence[str], rng: Generator, colour: str = "") -> str:
    """Draw one of the phrasings and name the colour in it."""
    return phrasings[int(rng.integers(len(phrasings)))].format(colour=colour)


def region(box: tuple[int, int, int, int]) -> str:
    """Return the region as text for the provenance, which only judges read."""
    return ",".join(map(str, box))


def colour_in(question: str) -> tuple[int, int, int]:
    """Return the RGB value of the colour that a question names.

    Raises:
        ValueError: The question names no colour of the palette.
    """
    found = re.search(rf"\b(?:{'|'.join(COLOURS)})\b", question, re.IGNORECASE)
    if found is None:
        raise ValueError(f"expected a colour of {sorted(COLOURS)} in the question: {question!r}")
    return COLOURS[found[0].lower()]


def last_line(text: str) -> str:
    """Return the last line of a program's output that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
