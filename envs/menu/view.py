"""Observation of an episode in fixed shapes: images as boxes, bags of words, a few figures.

Images are scaled until the longer side fits, by area averaging to shrink and by nearest neighbour
to enlarge, placed in the upper left corner, and padded with black. Words (runs of letters or of
digits, in lower case) set two components each, given by the CRC-32 of the word and of its reverse,
so that the encoding needs no vocabulary and is the same in every process; two, since words that
collide in one rarely collide in both.
"""

from __future__ import annotations

import math
import re
import zlib

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

from ..episode import Episode
from ..types import Turn

View = dict[str, NDArray[np.uint8] | NDArray[np.float32]]
"""Element of `view_space`."""

FIGURES = (
    "share of the turns used",
    "is the last turn",
    "code ran",
    "code failed",
    "a tool picture is there",
    "a number was printed",
    "that number x as (1 + x / (1 + |x|)) / 2",
)
"""The components of ``figures``, all between 0 and 1."""


def view_space(side: int, words: int) -> spaces.Dict:
    """Return the space of `view_of`."""
    picture = spaces.Box(0, 255, (side, side, 3), np.uint8)
    bag = spaces.Box(0.0, 1.0, (words,), np.float32)
    return spaces.Dict(
        {
            "image": picture,
            "tool_image": picture,
            "question": bag,
            "output": bag,
            "figures": spaces.Box(0.0, 1.0, (len(FIGURES),), np.float32),
        }
    )


def view_of(episode: Episode, *, side: int, words: int) -> View:
    """Return the observation of an episode.

    Returns:
        ``image`` and ``tool_image`` (the newest; black before the first), ``(side, side, 3)``;
        ``question`` and ``output`` (of the newest code), ``(words,)``; ``figures``, ``(7,)``.
    """
    shown = [image for turn in episode.turns if turn.execution for image in turn.execution.images]
    newest = episode.turns[-1] if episode.turns else None
    return {
        "image": encode_picture(episode.images[0] if episode.images else None, side),
        "tool_image": encode_picture(shown[-1] if shown else None, side),
        "question": encode_words(episode.task.question, words),
        "output": encode_words(_output_of(newest), words),
        "figures": _figures(episode, newest, has_picture=bool(shown)),
    }


def encode_picture(image: Image.Image | None, side: int) -> NDArray[np.uint8]:
    """Return an image as ``(side, side, 3)``; black without an image."""
    canvas = Image.new("RGB", (side, side))
    if image is not None:
        scale = side / max(image.size)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        method = Image.Resampling.BOX if scale < 1.0 else Image.Resampling.NEAREST
        canvas.paste(image.convert("RGB").resize(size, method))
    return np.array(canvas, dtype=np.uint8)


def encode_words(text: str, count: int) -> NDArray[np.float32]:
    """Return the bag of words of a text, ``(count,)``.

    >>> encode_words("Red, red!", 64).sum()
    np.float32(2.0)
    """
    bag = np.zeros(count, np.float32)
    for word in re.findall(r"[^\W\d_]+|\d+", text.lower()):
        letters = word.encode("utf-8", "replace")
        bag[zlib.crc32(letters) % count] = bag[zlib.crc32(letters[::-1] + b"<") % count] = 1.0
    return bag


def printed_number(text: str) -> float | None:
    """Return the last word of a text as a number; None where it is not a number."""
    last = text.split()[-1:]
    try:
        number = float(last[0]) if last else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _output_of(turn: Turn | None) -> str:
    if turn is None or turn.execution is None:
        return ""
    return f"{turn.execution.stdout}\n{turn.execution.error or ''}"


def _figures(episode: Episode, newest: Turn | None, *, has_picture: bool) -> NDArray[np.float32]:
    used = len(episode.turns) / episode.max_turns
    execution = None if newest is None else newest.execution
    number = None if execution is None else printed_number(execution.stdout)
    squashed = 0.0 if number is None else 0.5 + 0.5 * number / (1.0 + abs(number))
    is_last = len(episode.turns) == episode.max_turns - 1
    is_failed = execution is not None and not execution.is_ok
    flags = (is_last, execution is not None, is_failed, has_picture, number is not None)
    return np.array((used, *flags, squashed), dtype=np.float32)
