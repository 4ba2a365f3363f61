"""Demonstrations for the interface ``box``: whether a crop helps, and which, from the image alone.

The box covers the region that the teacher's programs use: the pixels of the colour that the
question names, with the ruler for a bar, or start and goal of a maze. Its sides lie on a grid, so
that a model with a coarse view of the image can still learn to name them. The answer after the crop
is the task's own: how it is read from the crop is left to the model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...envs.suites.nano.canvas import COLOURS, INK, near_colour
from ...envs.suites.nano.family import colour_in
from ...envs.suites.nano.suite import family_of
from ...envs.types import Task
from .oracle import KNOWN, SEEN

GRID = 8
"""Grid of a box's sides, in pixels; sides at the image's own edges can be off the grid."""
LOOK_AT = (
    "<think>I look closer.</think>\n<box>{box[0]}\n,\n{box[1]}\n,\n{box[2]}\n,\n{box[3]}</box>"
)
"""Each number is on its own line, where the nano model's tokenizer splits numbers into digits.
Within a line it would merge them with their neighbours' in varying ways, and boxes would be hard to
learn."""

Box = tuple[int, int, int, int]


def useful_box(picture: Image.Image, question: str) -> Box | None:
    """Return the box to crop: left, top, right and bottom; None where no crop helps."""
    family = family_of(question)
    if family is None or family.name == "area":
        return None
    pixels = np.asarray(picture.convert("RGB"))
    if family.name == "maze":
        mask = near_colour(pixels, COLOURS["green"]) | near_colour(pixels, COLOURS["red"])
    else:
        mask = near_colour(pixels, colour_in(question))
    if family.name == "bars":
        mask |= near_colour(pixels, INK)
    return _around(mask)


def box_texts(task: Task) -> list[str]:
    """Return the policy's texts for a task: the crop where one helps, then the answer."""
    box = useful_box(task.images[0], task.question)
    if box is None:
        return [SEEN.format(answer=task.answer)]
    return [LOOK_AT.format(box=box), KNOWN.format(answer=task.answer)]


def _around(mask: NDArray[np.bool_]) -> Box | None:
    """Return the smallest box on the grid that contains a mask; None where it is empty."""
    if not mask.any():
        return None
    rows, columns = np.nonzero(mask)
    left, top = columns.min() // GRID * GRID, rows.min() // GRID * GRID
    right = min(-(-(columns.max() + 1) // GRID) * GRID, mask.shape[1])
    bottom = min(-(-(rows.max() + 1) // GRID) * GRID, mask.shape[0])
    return int(left), int(top), int(right), int(bottom)
