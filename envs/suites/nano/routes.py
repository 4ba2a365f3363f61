"""A family answered by a search: the shortest path through a small maze."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from ...types import AnswerKind, Difficulty
from .canvas import COLOURS, PAPER, SIDE
from .family import Drawn, ask, last_line
from .sources import Split

WALL = (60, 60, 70)
DARKEST, PALEST = (0, 0, 0), (200, 200, 200)
"""Extreme colours of walls and paper of a corridor, for variety."""

DENSITY = {Difficulty.MEDIUM: 0.25, Difficulty.HARD: 0.36}
"""Share of the cells that are walls."""

Cell = tuple[int, int]

SEARCH = """\
import numpy as np
a = np.array(input_image).astype(int)
m = abs(a - (40, 160, 60)).sum(2) < 60
b = m.any(0).sum()
a = a[b // 2::b, b // 2::b]
s, t = [tuple(np.argwhere(abs(a - k).sum(2) < 60)[0]) for k in ((40, 160, 60), (220, 40, 40))]
d = {s: 0}
q = [s]
for y, x in q:
    for n in (y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1):
        if n not in d and a[n].sum() > 200:
            d[n] = d[y, x] + 1
            q.append(n)
print(d[t])
"""
STRAIGHT = """\
import numpy as np
a = np.array(input_image).astype(int)
m = abs(a - (40, 160, 60)).sum(2) < 60
b = m.any(0).sum()
a = a[b // 2::b, b // 2::b]
s, t = [np.argwhere(abs(a - k).sum(2) < 60)[0] for k in ((40, 160, 60), (220, 40, 40))]
print(abs(s - t).sum())
"""


class Maze:
    """The number of steps between the green and the red cell around walls."""

    name = "maze"
    phrasings = (
        "How many steps is the shortest path from green to red?",
        "Find the shortest path from the green cell to the red cell. How many steps?",
    )
    colours: tuple[str, ...] = ()
    answer_kind = AnswerKind.INTEGER
    choices: tuple[str, ...] = ()
    chance = 1 / 15

    def draw(self, rng: Generator, difficulty: Difficulty, split: Split) -> Drawn:
        """Draw a corridor, or random walls until two cells have the target distance."""
        del split
        cells = {Difficulty.EASY: 4, Difficulty.MEDIUM: 7, Difficulty.HARD: 16}[difficulty]
        low, high = {Difficulty.EASY: (1, 3), Difficulty.MEDIUM: (4, 9), Difficulty.HARD: (16, 30)}[
            difficulty
        ]
        wanted = int(rng.integers(low, high + 1))
        if difficulty is Difficulty.EASY:
            wall = tuple(rng.integers(DARKEST, np.add(WALL, 1)).tolist())
            ground = tuple(rng.integers(PALEST, np.add(PAPER, 1)).tolist())
            picture = _paint(*_corridor(rng, cells, wanted), wall=wall, ground=ground)
        else:
            picture = _paint(*_layout(rng, cells, DENSITY[difficulty], wanted))
        return Drawn(picture, ask(self.phrasings, rng), str(wanted))

    def programs(self, question: str) -> dict[str, str]:
        """Search breadth first through the sampled grid, or ignore the walls."""
        del question
        return {"exact": SEARCH, "loose": STRAIGHT}

    def read(self, text: str, images: Sequence[Image.Image]) -> str:
        """Return the number that was printed."""
        del images
        return last_line(text)


def distances(is_free: NDArray[np.bool_], start: tuple[int, int]) -> NDArray[np.int64]:
    """Return the steps from ``start`` to every cell ``(rows, columns)``; -1 if unreachable."""
    steps = np.full(is_free.shape, -1)
    steps[start] = 0
    frontier = np.zeros_like(is_free)
    frontier[start] = True
    count = 0
    while frontier.any():
        count += 1
        spread = np.zeros_like(frontier)
        spread[1:] |= frontier[:-1]
        spread[:-1] |= frontier[1:]
        spread[:, 1:] |= frontier[:, :-1]
        spread[:, :-1] |= frontier[:, 1:]
        frontier = spread & is_free & (steps < 0)
        steps[frontier] = count
    return steps


def _corridor(rng: Generator, cells: int, wanted: int) -> tuple[NDArray[np.bool_], Cell, Cell]:
    """Draw one straight horizontal corridor with the start at either end."""
    is_free = np.zeros((cells + 2, cells + 2), bool)
    row = int(rng.integers(1, cells + 1))
    is_free[row, 1:-1] = True
    if rng.integers(2):
        return is_free, (row, 1), (row, 1 + wanted)
    return is_free, (row, cells), (row, cells - wanted)


def _layout(
    rng: Generator, cells: int, density: float, wanted: int
) -> tuple[NDArray[np.bool_], Cell, Cell]:
    """Draw free cells, a start and a goal until these are ``wanted`` steps apart."""
    while True:
        is_free = np.zeros((cells + 2, cells + 2), bool)
        is_free[1:-1, 1:-1] = rng.random((cells, cells)) > density
        start = _choose(np.argwhere(is_free), rng)
        if start is None:
            continue
        goal = _choose(np.argwhere(distances(is_free, start) == wanted), rng)
        if goal is not None:
            return is_free, start, goal


def _choose(cells: NDArray[np.int64], rng: Generator) -> Cell | None:
    if not len(cells):
        return None
    row, column = cells[int(rng.integers(len(cells)))]
    return int(row), int(column)


def _paint(
    is_free: NDArray[np.bool_],
    start: Cell,
    goal: Cell,
    *,
    wall: tuple[int, ...] = WALL,
    ground: tuple[int, ...] = PAPER,
) -> Image.Image:
    cells = np.where(is_free[..., None], np.array(ground), np.array(wall)).astype(np.uint8)
    cells[start] = COLOURS["green"]
    cells[goal] = COLOURS["red"]
    side = SIDE // len(cells)
    pixels = np.full((SIDE, SIDE, 3), wall, np.uint8)
    pixels[: side * len(cells), : side * len(cells)] = np.kron(
        cells, np.ones((side, side, 1), np.uint8)
    )
    return Image.fromarray(pixels)
