"""Families answered by a number or a name that a program prints: count, bars, area."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from ...types import AnswerKind, Difficulty
from .canvas import COLOURS, INK, SIDE, Box, free_boxes, paper
from .family import Drawn, ask, colour_in, last_line
from .sources import Split

COUNT = """\
import cv2, numpy as np
a = np.array({picture}).astype(int)
m = abs(a - {colour}).sum(2) < 60
print(cv2.connectedComponents(m.astype("uint8"))[0] - 1)
"""
WIDTH = """\
import numpy as np
a = np.array({picture}).astype(int)
u = (abs(a - (30, 30, 40)).sum(2) < 60).any(0).sum()
v = (abs(a - {colour}).sum(2) < 60).any(0).sum()
print(round(10 * v / u))
"""
LARGEST = """\
import numpy as np
a = np.array({picture}).astype(int)
n = {{"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 220), "yellow": (235, 200, 40), "purple": (150, 40, 190)}}
print(max(n, key=lambda k: (abs(a - n[k]).sum(2) < 60).sum()))
"""  # noqa: E501
WHOLE, SMALL = "input_image", "input_image.resize((56, 56))"


class Count:
    """Number of discs of one colour: none or a few large ones, or dozens of small ones."""

    name = "count"
    phrasings = ("How many {colour} discs are there?", "Count the {colour} discs.")
    colours: tuple[str, ...] = tuple(COLOURS)
    answer_kind = AnswerKind.INTEGER
    choices: tuple[str, ...] = ()
    chance = 1 / 36

    def draw(self, rng: Generator, difficulty: Difficulty, split: Split) -> Drawn:
        """Draw the target number of discs, side by side or among those of other colours."""
        del split
        low, high = {
            Difficulty.EASY: (0, 3),
            Difficulty.MEDIUM: (7, 16),
            Difficulty.HARD: (25, 60),
        }[difficulty]
        target = int(rng.integers(low, high + 1))
        colour, *others = rng.permutation(list(COLOURS)).tolist()
        if difficulty is Difficulty.EASY:
            boxes = _row(rng, target)
        else:
            distractors = int(rng.integers({Difficulty.MEDIUM: 9, Difficulty.HARD: 31}[difficulty]))
            small, large = {Difficulty.MEDIUM: (13, 18), Difficulty.HARD: (6, 9)}[difficulty]
            sides = [int(v) for v in rng.integers(small, large + 1, size=target + distractors)]
            boxes = free_boxes(rng, sides, margin=2)
        picture = paper(rng)
        draw = ImageDraw.Draw(picture)
        for index, box in enumerate(boxes):
            name = colour if index < target else others[int(rng.integers(2))]
            draw.ellipse((box[0], box[1], box[2] - 1, box[3] - 1), fill=COLOURS[name])
        return Drawn(picture, ask(self.phrasings, rng, colour), str(min(target, len(boxes))))

    def programs(self, question: str) -> dict[str, str]:
        """Label the colour's components at full size, or on a small copy that merges them."""
        colour = colour_in(question)
        return {
            "exact": COUNT.format(colour=colour, picture=WHOLE),
            "loose": COUNT.format(colour=colour, picture=SMALL),
        }

    def read(self, text: str, images: Sequence[Image.Image]) -> str:
        """Return the number that was printed."""
        del images
        return last_line(text)


def _row(rng: Generator, count: int) -> list[Box]:
    """Place large squares side by side from the left, not quite in line."""
    top = int(rng.integers(8, 140))
    boxes: list[Box] = []
    for index in range(count):
        left, rise = 6 + 72 * index + int(rng.integers(8)), int(rng.integers(16))
        side = int(rng.integers(56, 63))
        boxes.append((left, top + rise, left + side, top + rise + side))
    return boxes


class Bars:
    """The length of a bar, measured against a black ruler that is ten units long."""

    name = "bars"
    phrasings = (
        "The black ruler is 10 units long. How long is the {colour} bar?",
        "How many units long is the {colour} bar? The black ruler is 10 units.",
    )
    colours: tuple[str, ...] = tuple(COLOURS)
    answer_kind = AnswerKind.INTEGER
    choices: tuple[str, ...] = ()
    chance = 1 / 90

    def draw(self, rng: Generator, difficulty: Difficulty, split: Split) -> Drawn:
        """Draw horizontal bars; the unit is 20 pixels at easy and two pixels at hard difficulty."""
        del split
        possible = {
            Difficulty.EASY: np.array([1, 4, 7, 10]),
            Difficulty.MEDIUM: np.arange(5, 30),
            Difficulty.HARD: np.arange(11, 101),
        }[difficulty]
        unit = {Difficulty.EASY: 20, Difficulty.MEDIUM: 7, Difficulty.HARD: 2}[difficulty]
        count = {Difficulty.EASY: 1, Difficulty.MEDIUM: 3, Difficulty.HARD: 5}[difficulty]
        names = rng.permutation(list(COLOURS)).tolist()[:count]
        lengths = [int(v) for v in rng.choice(possible, size=count)]
        picture = paper(rng)
        draw = ImageDraw.Draw(picture)
        pitch = 180 // count
        order = rng.permutation(count)
        for index, (name, length) in enumerate(zip(names, lengths, strict=True)):
            left = (
                8
                if difficulty is Difficulty.EASY
                else int(rng.integers(6, SIDE - 4 - unit * length))
            )
            top = 10 + pitch * int(order[index])
            thick = int(rng.integers(pitch // 3, pitch - 8))
            draw.rectangle((left, top, left + unit * length - 1, top + thick), fill=COLOURS[name])
        left = int(rng.integers(6, SIDE - 4 - unit * 10))
        draw.rectangle((left, 204, left + unit * 10 - 1, 210), fill=INK)
        return Drawn(picture, ask(self.phrasings, rng, names[0]), str(lengths[0]))

    def programs(self, question: str) -> dict[str, str]:
        """Measure both widths in pixels, at full size or on a small copy."""
        colour = colour_in(question)
        return {
            "exact": WIDTH.format(colour=colour, picture=WHOLE),
            "loose": WIDTH.format(colour=colour, picture=SMALL),
        }

    def read(self, text: str, images: Sequence[Image.Image]) -> str:
        """Return the number that was printed."""
        del images
        return last_line(text)


class Area:
    """The colour that covers most of a mosaic, by a wide or a narrow margin."""

    name = "area"
    phrasings = (
        "Which colour covers the largest area?",
        "Which colour takes up most of the picture?",
    )
    colours: tuple[str, ...] = ()
    answer_kind = AnswerKind.TEXT
    choices: tuple[str, ...] = tuple(COLOURS)
    chance = 0.2

    def draw(self, rng: Generator, difficulty: Difficulty, split: Split) -> Drawn:
        """Shuffle coloured cells; at hard difficulty one leads by an eightieth of its cells."""
        del split
        cells = {Difficulty.EASY: 4, Difficulty.MEDIUM: 28, Difficulty.HARD: 56}[difficulty]
        lead = {Difficulty.EASY: 6, Difficulty.MEDIUM: 6, Difficulty.HARD: 8}[difficulty]
        names = rng.permutation(list(COLOURS)).tolist()
        total = cells * cells
        share = (total - lead) // len(names)
        owners = np.repeat(np.arange(len(names)), share)
        extra = np.concatenate(
            [np.zeros(lead, int), rng.integers(1, 5, total - lead - owners.size)]
        )
        grid = rng.permutation(np.concatenate([owners, extra])).reshape(cells, cells)
        palette = np.array([COLOURS[name] for name in names], np.uint8)
        pixels = np.kron(grid, np.ones((SIDE // cells, SIDE // cells), int))
        return Drawn(Image.fromarray(palette[pixels]), ask(self.phrasings, rng), names[0])

    def programs(self, question: str) -> dict[str, str]:
        """Count every colour's pixels, at full size or on a small blurred copy."""
        del question
        return {"exact": LARGEST.format(picture=WHOLE), "loose": LARGEST.format(picture=SMALL)}

    def read(self, text: str, images: Sequence[Image.Image]) -> str:
        """Return the name that was printed."""
        del images
        return last_line(text)
