"""Colours, backgrounds and marks that the nano families draw with, pixel-exact."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 224
"""Width and height of every image of the suite, in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (235, 200, 40),
    "purple": (150, 40, 190),
}
INK = (30, 30, 40)
PAPER = (250, 250, 250)

Box = tuple[int, int, int, int]


def paper(rng: Generator) -> Image.Image:
    """Return an empty, nearly white background with a faint gradient of brightness."""
    level = rng.integers(225, 246)
    slope = rng.integers(-8, 9, size=2)
    ramp = np.linspace(-1, 1, SIDE)
    values = level + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    return Image.fromarray(np.repeat(values[..., None], 3, axis=2).astype(np.uint8))


def scribbles(picture: Image.Image, rng: Generator, count: int) -> None:
    """Draw pale grey lines across the image, as clutter."""
    draw = ImageDraw.Draw(picture)
    for _ in range(count):
        ends = [int(v) for v in rng.integers(0, SIDE, size=4)]
        grey = int(rng.integers(170, 215))
        draw.line(ends, fill=(grey, grey, grey), width=int(rng.integers(1, 3)))


def coloured_noise(rng: Generator) -> Image.Image:
    """Return a background of strong colour noise without the palette colours."""
    noise = rng.integers(60, 200, size=(SIDE, SIDE, 3)).astype(np.uint8)
    for colour in COLOURS.values():
        near = np.abs(noise.astype(int) - colour).sum(2) < 90
        noise[near] = (128, 128, 128)
    return Image.fromarray(noise)


def ink_picture(glyph: NDArray[np.uint8], side: int) -> Image.Image:
    """Draw 8 by 8 ink, levels 0 to 16, dark on white, ``side`` pixels wide."""
    levels = (250 - glyph.astype(np.int64) * 14).astype(np.uint8)
    resample = Image.Resampling.BICUBIC if side > 24 else Image.Resampling.NEAREST
    return Image.fromarray(levels).resize((side, side), resample).convert("RGB")


def letter_picture(letter: str, side: int, colour: tuple[int, int, int]) -> Image.Image:
    """Draw a white letter that fills most of a square of the colour."""
    large = Image.new("L", (160, 160))
    font = ImageFont.load_default(size=150)
    ImageDraw.Draw(large).text((80, 80), letter, fill=255, font=font, anchor="mm")
    left, top, right, bottom = large.getbbox() or (0, 0, 160, 160)
    reach = max(right - left, bottom - top) * 0.66
    middle = ((left + right) / 2, (top + bottom) / 2)
    window = (middle[0] - reach, middle[1] - reach, middle[0] + reach, middle[1] + reach)
    mask = large.transform((side, side), Image.Transform.EXTENT, window, Image.Resampling.BILINEAR)
    sign = Image.new("RGB", (side, side), colour)
    sign.paste(PAPER, (0, 0), mask.point([0] * 128 + [255] * 128))
    return sign


def free_boxes(rng: Generator, sides: list[int], *, margin: int = 4, tries: int = 400) -> list[Box]:
    """Place squares of the given sides without contact; fewer when space runs out."""
    boxes: list[Box] = []
    for side in sides:
        for _ in range(tries):
            left, top = (int(v) for v in rng.integers(margin, SIDE - side - margin + 1, size=2))
            box = (left, top, left + side, top + side)
            if all(_are_apart(box, other, margin) for other in boxes):
                boxes.append(box)
                break
    return boxes


def _are_apart(one: Box, other: Box, margin: int) -> bool:
    return (
        one[0] > other[2] + margin
        or other[0] > one[2] + margin
        or one[1] > other[3] + margin
        or other[1] > one[3] + margin
    )


def near_colour(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Return which pixels ``(h, w, 3)`` a program's colour mask matches, ``(h, w)``."""
    return np.abs(pixels.astype(np.int64) - np.array(colour)).sum(2) < 60
