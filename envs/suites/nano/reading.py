"""Families answered from an image that a program returns: digit, tag, dots."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...types import AnswerKind, Difficulty
from .canvas import (
    COLOURS,
    INK,
    SIDE,
    coloured_noise,
    free_boxes,
    ink_picture,
    letter_picture,
    near_colour,
    paper,
    scribbles,
)
from .family import Drawn, ask, colour_in, region
from .sources import Split, ink, nearest_digit, nearest_dot_pattern, photograph

LETTERS = "ACEHKLMTXZ"
CLEAREST = {Difficulty.EASY: 0.4, Difficulty.MEDIUM: 1.0, Difficulty.HARD: 1.0}
"""Share of the ink used per difficulty, the clearest first: easy is also easy to read."""

CROP = """\
import numpy as np
a = np.array(input_image).astype(int)
y, x = np.nonzero(abs(a - {colour}).sum(2) < 60)
input_image.crop((x.min(), y.min(), x.max() + 1, y.max() + 1))
"""
CENTRE = """\
input_image.crop((56, 56, 168, 168))
"""
DRAW = """\
import numpy as np
from PIL import Image, ImageDraw
a = np.array(input_image).astype(int)
y, x = np.nonzero(abs(a - {colour}).sum(2) < 60)
c = Image.new("L", input_image.size, 255)
d = ImageDraw.Draw(c)
for u, v in zip(x, y):
    d.ellipse((u - 12, v - 12, u + 12, v + 12), fill=20)
c
"""


class Digit:
    """A handwritten digit in a coloured frame that fills the image, or is 1 % of it."""

    name = "digit"
    phrasings = (
        "Which digit is in the {colour} frame?",
        "Read the digit inside the {colour} frame.",
    )
    colours: tuple[str, ...] = tuple(COLOURS)
    answer_kind = AnswerKind.INTEGER
    choices: tuple[str, ...] = tuple("0123456789")
    chance = 0.1

    def draw(self, rng: Generator, difficulty: Difficulty, split: Split) -> Drawn:
        """Draw framed ink on paper; above easy difficulty among frames of other colours."""
        digit = int(rng.integers(10))
        colour, *others = rng.permutation(list(COLOURS)).tolist()
        decoys = {Difficulty.EASY: 0, Difficulty.MEDIUM: 1, Difficulty.HARD: 3}[difficulty]
        low, high = {
            Difficulty.EASY: (184, 208),
            Difficulty.MEDIUM: (44, 60),
            Difficulty.HARD: (20, 24),
        }[difficulty]
        sides = [int(rng.integers(low, high + 1)) // 2 * 2 for _ in range(1 + decoys)]
        picture = paper(rng)
        scribbles(picture, rng, 0 if difficulty is Difficulty.EASY else 8)
        sources: list[str] = []
        names = (colour, *others[:decoys])
        boxes = free_boxes(rng, sides)
        for index, (box, name) in enumerate(zip(boxes, names, strict=False)):
            shown = digit if index == 0 else int(rng.integers(10))
            glyph, source = ink(split, shown, rng, clearest=CLEAREST[difficulty])
            sources.append(str(source))
            side = box[2] - box[0]
            border = 2 if side < 30 else max(2, side // 16)
            picture.paste(Image.new("RGB", (side, side), COLOURS[name]), box[:2])
            inner = ink_picture(glyph, side - 2 * border)
            picture.paste(inner, (box[0] + border, box[1] + border))
        question = ask(self.phrasings, rng, colour)
        return Drawn(
            picture,
            question,
            str(digit),
            {"ink": f"{split}:{sources[0]}", "region": region(boxes[0])},
        )

    def programs(self, question: str) -> dict[str, str]:
        """Crop the frame by its colour, or the middle of the image."""
        return {"exact": CROP.format(colour=colour_in(question)), "loose": CENTRE}

    def read(self, text: str, images: Sequence[Image.Image]) -> str:
        """Compare the crop's ink, frame removed, with known ink."""
        del text
        crop = images[-1]
        border = 2 if crop.width < 30 else max(2, crop.width // 16)
        inner = crop.crop((border, border, crop.width - border, crop.height - border))
        return str(_read_ink(inner))


class Tag:
    """A letter on a coloured sign somewhere in a real photograph."""

    name = "tag"
    phrasings = (
        "Which letter is on the {colour} sign?",
        "Read the letter on the {colour} sign in the photo.",
    )
    colours: tuple[str, ...] = ("red", "green", "blue", "purple")
    answer_kind = AnswerKind.TEXT
    choices: tuple[str, ...] = tuple(LETTERS)
    chance = 0.1

    def draw(self, rng: Generator, difficulty: Difficulty, split: Split) -> Drawn:
        """Paste signs on a photograph without pixels of the colour in question."""
        letter = LETTERS[int(rng.integers(len(LETTERS)))]
        colour, *others = rng.permutation(list(self.colours)).tolist()
        decoys = {Difficulty.EASY: 0, Difficulty.MEDIUM: 1, Difficulty.HARD: 2}[difficulty]
        low, high = {
            Difficulty.EASY: (190, 208),
            Difficulty.MEDIUM: (40, 54),
            Difficulty.HARD: (15, 18),
        }[difficulty]
        picture, source = photograph(split, SIDE, rng)
        pixels = np.array(picture)
        pixels[near_colour(pixels, COLOURS[colour])] = (128, 128, 128)
        picture = Image.fromarray(pixels)
        sides = [int(rng.integers(low, high + 1)) for _ in range(1 + decoys)]
        names = (colour, *others[:decoys])
        boxes = free_boxes(rng, sides)
        for index, (box, name) in enumerate(zip(boxes, names, strict=False)):
            shown = letter if index == 0 else LETTERS[int(rng.integers(len(LETTERS)))]
            picture.paste(letter_picture(shown, box[2] - box[0], COLOURS[name]), box[:2])
        question = ask(self.phrasings, rng, colour)
        return Drawn(
            picture,
            question,
            letter,
            {"photograph": f"{split}:{source}", "region": region(boxes[0])},
        )

    def programs(self, question: str) -> dict[str, str]:
        """Crop the sign by its colour, or the middle of the image."""
        return {"exact": CROP.format(colour=colour_in(question)), "loose": CENTRE}

    def read(self, text: str, images: Sequence[Image.Image]) -> str:
        """Compare the crop with every letter drawn at its size."""
        del text
        pixels = np.asarray(images[-1].convert("RGB")).astype(int)
        is_letter = np.abs(pixels - np.array((250, 250, 250))).sum(2) < 60
        height, width = is_letter.shape
        side = max(height, width)
        errors = [
            float((_letter_mask(letter, side)[:height, :width] != is_letter).sum())
            for letter in LETTERS
        ]
        return LETTERS[int(np.argmin(errors))]


class Dots:
    """A handwritten digit made of dots, readable when the dots are drawn larger."""

    name = "dots"
    phrasings = (
        "Which digit do the {colour} dots form?",
        "The {colour} dots trace a digit. Which one?",
    )
    colours: tuple[str, ...] = tuple(COLOURS)
    answer_kind = AnswerKind.INTEGER
    choices: tuple[str, ...] = tuple("0123456789")
    chance = 0.1

    def draw(self, rng: Generator, difficulty: Difficulty, split: Split) -> Drawn:
        """Draw a dot wherever the ink is dark; at hard difficulty one pixel in colour noise."""
        digit = int(rng.integers(10))
        colour, other, *_ = rng.permutation(list(COLOURS)).tolist()
        glyph, source = ink(split, digit, rng, clearest=CLEAREST[difficulty])
        picture = paper(rng) if difficulty is Difficulty.EASY else coloured_noise(rng)
        draw = ImageDraw.Draw(picture)
        if difficulty is not Difficulty.EASY:
            for _ in range(40):
                draw.point([int(v) for v in rng.integers(0, SIDE, size=2)], fill=COLOURS[other])
        for row, column in np.argwhere(glyph >= 8):
            u, v = 28 + int(column) * 24, 28 + int(row) * 24
            _dot(
                draw,
                (u, v),
                {Difficulty.EASY: 11, Difficulty.MEDIUM: 2, Difficulty.HARD: 0}[difficulty],
                COLOURS[colour],
            )
        question = ask(self.phrasings, rng, colour)
        return Drawn(picture, question, str(digit), {"ink": f"{split}:{source}"})

    def programs(self, question: str) -> dict[str, str]:
        """Draw a large disc at every dot, or crop the middle of the image."""
        return {"exact": DRAW.format(colour=colour_in(question)), "loose": CENTRE}

    def read(self, text: str, images: Sequence[Image.Image]) -> str:
        """Sample the drawing at the possible dots and compare with known ink."""
        del text
        grey = np.asarray(images[-1].convert("L"))
        cells = grey[28 : 28 + 8 * 24 : 24, 28 : 28 + 8 * 24 : 24]
        return str(nearest_dot_pattern(cells < 128))


def _dot(
    draw: ImageDraw.ImageDraw, centre: tuple[int, int], radius: int, colour: tuple[int, int, int]
) -> None:
    u, v = centre
    if radius == 0:
        draw.point((u, v), fill=colour)
    else:
        draw.ellipse((u - radius, v - radius, u + radius, v + radius), fill=colour)


def _read_ink(inner: Image.Image) -> int:
    grey = inner.convert("L").resize((8, 8), Image.Resampling.BOX)
    return nearest_digit(250.0 - np.asarray(grey, dtype=np.float64))


@cache
def _letter_mask(letter: str, side: int) -> NDArray[np.bool_]:
    pixels = np.asarray(letter_picture(letter, side, INK)).astype(int)
    return np.abs(pixels - np.array((250, 250, 250))).sum(2) < 60
