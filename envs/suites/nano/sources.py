"""Handwritten digits and photographs, disjoint between train and test."""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "test"]


@cache
def _packed() -> dict[str, NDArray[np.uint8]]:
    with (
        files(__package__ or __name__).joinpath("sources.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        return {name: arrays[name] for name in arrays.files}


def ink(
    split: Split, digit: int, rng: Generator, *, clearest: float = 1.0
) -> tuple[NDArray[np.uint8], int]:
    """Return a random handwritten digit: ink ``(8, 8)``, levels 0 to 16, and its index.

    Args:
        split: Split of the sources.
        digit: Digit, 0 to 9.
        rng: Random generator.
        clearest: Share of the digit's samples to draw from, the clearest first.
    """
    ranked = _by_clearness(split)[digit]
    index = int(rng.choice(ranked[: math.ceil(clearest * len(ranked))]))
    return _packed()[f"{split}_ink"][index], index


@cache
def _by_clearness(split: Split) -> list[NDArray[np.int64]]:
    """Rank each digit's samples by their margin to the mean of the nearest other digit."""
    packed = _packed()
    known = packed["train_ink"].reshape(-1, 64) / 16.0
    means = np.stack([known[packed["train_digits"] == digit].mean(0) for digit in range(10)])
    levels = packed[f"{split}_ink"].reshape(-1, 1, 64) / 16.0
    apart = ((levels - means) ** 2).sum(2)
    digits = packed[f"{split}_digits"].astype(np.int64)
    rows = np.arange(len(digits))
    own = apart[rows, digits].copy()
    apart[rows, digits] = np.inf
    margin = own - apart.min(1)
    places = [np.flatnonzero(digits == digit) for digit in range(10)]
    return [place[np.argsort(margin[place], kind="stable")] for place in places]


def photograph(split: Split, side: int, rng: Generator) -> tuple[Image.Image, int]:
    """Return a random square window of a photograph, ``side`` pixels wide, and its index."""
    photos = _packed()[f"{split}_photos"]
    index = int(rng.integers(len(photos)))
    width = int(rng.integers(110, photos.shape[1] + 1))
    left, top = (int(rng.integers(photos.shape[1] - width + 1)) for _ in range(2))
    window = Image.fromarray(photos[index]).crop((left, top, left + width, top + width))
    if rng.integers(2):
        window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return window.resize((side, side), Image.Resampling.BICUBIC), index


def nearest_digit(glyph: NDArray[np.float64]) -> int:
    """Classify a digit by its nearest neighbour among all packed samples.

    Args:
        glyph: Ink, ``(8, 8)``, on any scale.
    """
    packed = _packed()
    samples = np.concatenate([packed["train_ink"], packed["test_ink"]]).reshape(-1, 64) / 16.0
    digits = np.concatenate([packed["train_digits"], packed["test_digits"]])
    scaled = glyph.reshape(-1) / max(float(glyph.max()), 1e-9)
    return int(digits[((samples - scaled) ** 2).sum(1).argmin()])


def nearest_dot_pattern(dots: NDArray[np.bool_]) -> int:
    """Classify a digit by the cells ``(8, 8)`` with a dot (ink of level 8 or more)."""
    packed = _packed()
    ink_levels = np.concatenate([packed["train_ink"], packed["test_ink"]])
    digits = np.concatenate([packed["train_digits"], packed["test_digits"]])
    return int(digits[((ink_levels >= 8) != dots).sum((1, 2)).argmin()])
