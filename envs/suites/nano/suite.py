"""The nano suite: order, ids and seeds of its tasks."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np

from ...types import Difficulty, Task
from .canvas import COLOURS
from .family import Family
from .measuring import Area, Bars, Count
from .reading import Digit, Dots, Tag
from .routes import Maze
from .sources import Split

VERSION = "2"
"""Version, changed whenever the same seed draws another item."""
FAMILIES: dict[str, Family] = {
    family.name: family for family in (Digit(), Tag(), Dots(), Count(), Bars(), Area(), Maze())
}
DIFFICULTIES = tuple(Difficulty)
SIZES: dict[Split, int] = {"train": 1_000_000, "test": 2_000}


class NanoSuite:
    """A split of the nano suite; an index yields the same task on any machine.

    Families and difficulties alternate, so that any 21 consecutive tasks hold each pair once.

    Args:
        split: Split, ``train`` (a million tasks) or ``test`` (2,000), disjoint by seed and source.
    """

    name = "nano"

    def __init__(self, split: Literal["train", "test"] = "train") -> None:
        if split not in SIZES:
            raise ValueError(f"split must be one of {sorted(SIZES)}, got {split!r}")
        self.split: Split = split

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the families."""
        return tuple(FAMILIES)

    def indices_of(self, family: str) -> Sequence[int]:
        """Return the indices of a family's tasks: every seventh."""
        names = self.families
        return range(names.index(family), len(self), len(names)) if family in names else ()

    def __len__(self) -> int:
        return SIZES[self.split]

    def __getitem__(self, index: int) -> Task:
        if not 0 <= index < len(self):
            raise IndexError(f"nano/{self.split} holds tasks 0 to {len(self) - 1}, got {index}")
        return self.draw(index)

    def draw(self, index: int) -> Task:
        """Draw the task of any index, including indices past the end of the split."""
        names = self.families
        family = names[index % len(names)]
        difficulty = DIFFICULTIES[index // len(names) % len(DIFFICULTIES)]
        return make_task(family, difficulty, self.split, index)

    def task(self, task_id: str) -> Task:
        """Draw the task with an id such as ``nano/bars/test/hard/17``.

        Raises:
            KeyError: The split does not have the id.
        """
        found = re.fullmatch(rf"nano/(\w+)/{self.split}/(\w+)/(\d+)", task_id)
        if found is None or found[1] not in FAMILIES or found[2] not in set(DIFFICULTIES):
            raise KeyError(f"expected an id like 'nano/bars/{self.split}/hard/17', got {task_id!r}")
        return make_task(found[1], Difficulty(found[2]), self.split, int(found[3]))


def make_task(family_name: str, difficulty: Difficulty, split: Split, seed: int) -> Task:
    """Draw one task; the four arguments determine every pixel and the answer."""
    family = FAMILIES[family_name]
    stream = [
        zlib.crc32(family_name.encode()),
        DIFFICULTIES.index(difficulty),
        split == "test",
        seed,
    ]
    drawn = family.draw(np.random.default_rng(stream), difficulty, split)
    return Task(
        id=f"nano/{family_name}/{split}/{difficulty}/{seed}",
        suite="nano",
        family=family_name,
        split=split,
        question=drawn.question,
        images=(drawn.picture,),
        answer=drawn.answer,
        answer_kind=family.answer_kind,
        choices=family.choices if family.answer_kind == "choice" else (),
        difficulty=difficulty,
        provenance={"generator": f"nano {VERSION}", "seed": str(seed), **drawn.provenance},
    )


def family_of(question: str) -> Family | None:
    """Return the family that a question is a phrasing of; None without one."""
    for pattern, name in _patterns():
        if pattern.fullmatch(question.strip()):
            return FAMILIES[name]
    return None


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    patterns: list[tuple[re.Pattern[str], str]] = []
    for name, family in FAMILIES.items():
        for phrasing in family.phrasings:
            text = re.escape(phrasing).replace(r"\{colour\}", f"(?:{'|'.join(COLOURS)})")
            patterns.append((re.compile(text, re.IGNORECASE), name))
    return patterns
