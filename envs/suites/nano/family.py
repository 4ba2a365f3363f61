"""What a family of the nano suite is: pictures from a seed, programs, and how to read their output.

The programs and the reading work from the picture alone; they are the suite's oracle and the
source of its demonstrations. The stored answer comes from the generator's state, never from them.
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
        picture: RGB.
        question: What is asked.
        answer: True by the state from which the picture was drawn.
        provenance: What the drawing took from outside (ink, photograph), by name; ``region``: the
            box that holds the truth, where there is one.
    """

    picture: Image.Image
    question: str
    answer: str
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])


class Family(Protocol):
    """A kind of question whose need for code shows only in the picture.

    Attributes:
        name: Of the family.
        phrasings: Questions, with ``{colour}`` where one is named.
        colours: Which are named; empty where none is.
        answer_kind: Grader.
        choices: Possible answers where they are few; empty otherwise.
        chance: Share that guessing among the answers of the hard band gets right.
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
        """Draw an item; the generator's state decides all of it."""
        ...

    def programs(self, question: str) -> dict[str, str]:
        """Return programs by style: ``exact`` always works, ``loose`` fails on fine detail."""
        ...

    def read(self, text: str, images: Sequence[Image.Image]) -> str:
        """Read the answer from what the exact program gave back."""
        ...


def ask(phrasings: Sequence[str], rng: Generator, colour: str = "") -> str:
    """Draw one of the phrasings and name the colour in it."""
    return phrasings[int(rng.integers(len(phrasings)))].format(colour=colour)


def region(box: tuple[int, int, int, int]) -> str:
    """Write where the truth stands, for the provenance: only judges read it."""
    return ",".join(map(str, box))


def colour_in(question: str) -> tuple[int, int, int]:
    """Return the RGB value of the colour that a question names.

    Raises:
        ValueError: It names none of the palette.
    """
    found = re.search(rf"\b(?:{'|'.join(COLOURS)})\b", question, re.IGNORECASE)
    if found is None:
        raise ValueError(f"expected a colour of {sorted(COLOURS)} in the question: {question!r}")
    return COLOURS[found[0].lower()]


def last_line(text: str) -> str:
    """Return the last line of a program's output that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
