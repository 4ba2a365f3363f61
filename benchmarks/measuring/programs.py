"""The programs that contestants run, and their input image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 768
"""Width and height of the input image."""


@dataclass(frozen=True, slots=True)
class Program:
    """A block of code.

    Attributes:
        code: Source code; an image that it makes is called ``out``.
        shows: Output besides text: nothing, the image ``out``, or the figure.
    """

    code: str
    shows: str = ""


PROGRAMS = {
    "print": Program("print(1 + 1)"),
    "crop": Program(
        "from PIL import Image\n"
        f"out = input_image.crop((0, 0, {SIDE}, {SIDE})).resize((1024, 1024), Image.LANCZOS)",
        "out",
    ),
    "small crop": Program("out = input_image.crop((100, 100, 324, 324)).resize((448, 448))", "out"),
    "figure": Program(
        "import matplotlib.pyplot as plt\n"
        "figure, axes = plt.subplots()\n"
        "axes.plot(range(50), [x * x for x in range(50)], label='squares')\n"
        "axes.set_title('A plot'); axes.set_xlabel('x'); axes.set_ylabel('y'); axes.legend()",
        "figure",
    ),
}

EPISODES = {
    "light": ("print", "small crop", "print"),
    "heavy": ("print", "crop", "figure"),
}
"""Turns of an episode: a new session with an image, three turns, the end."""

FIGURE_TO_OUT = (
    "\nfrom PIL import Image\nfigure.canvas.draw()\n"
    "out = Image.frombuffer('RGBA', figure.canvas.get_width_height(), figure.canvas.buffer_rgba())"
    ".convert('RGB')\nplt.close(figure)"
)
"""Code that renders a figure where none is shown automatically."""


def input_picture(seed: int) -> Image.Image:
    """Return the input image of all programs: noise, which does not compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def explicit(program: Program) -> str:
    """Return the code with its figure, if it shows one, rendered to ``out``."""
    return program.code + (FIGURE_TO_OUT if program.shows == "figure" else "")
