"""A user's own task families: one decorated function each, drawn from seeds.

>>> from PIL import Image
>>> @register_family("shades", "red")
... def red(rng, difficulty):
...     level = int(rng.integers(256))
...     return Item("How red is it?", Image.new("RGB", (8, 8), (level, 0, 0)), str(level))
>>> GeneratedSuite("shades", families_of("shades"), split="train")[0].id
'shades/red/train/easy/0'
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ..picture import as_rgb
from ..text.unicode_text import lone_surrogate
from ..types import AnswerKind, Difficulty, Task
from .base import Split

DIFFICULTIES = tuple(Difficulty)
SIZES: dict[Split, int] = {"train": 1_000_000, "test": 2_000}


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """An item drawn by a family: a task without id, suite and split; see `Task` for the fields."""

    question: str
    images: Image.Image | tuple[Image.Image, ...]
    answer: str
    answer_kind: AnswerKind = AnswerKind.TEXT
    tolerance: float = 0.0
    choices: tuple[str, ...] = ()
    needs_picture: bool = True
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])


Family = Callable[[np.random.Generator, Difficulty], Item]
"""Draws one item, determined by the generator and the difficulty."""

_FAMILIES: dict[str, dict[str, Family]] = {}


def register_family(suite_name: str, family: str) -> Callable[[Family], Family]:
    """Add the decorated function to a suite as a family of its own.

    A new suite name creates a new suite; under ``nano`` the family is added to the embedded ones.
    Registering the same names again replaces the function.
    """
    for kind, name in (("suite", suite_name), ("family", family)):
        is_writable = lone_surrogate(name) is None
        if not name or "/" in name or name.endswith((".jsonl", ".py")) or not is_writable:
            raise ValueError(f"{name!r} cannot name a {kind}: it would not do as part of a task id")

    def register(draw: Family) -> Family:
        _FAMILIES.setdefault(suite_name, {})[family] = draw
        return draw

    return register


def families_of(suite_name: str) -> dict[str, Family]:
    """Return the registered families of a suite by name; empty without any."""
    return dict(_FAMILIES.get(suite_name, {}))


def suites_with_families() -> tuple[str, ...]:
    """Return the names of the suites with registered families."""
    return tuple(_FAMILIES)


class GeneratedSuite:
    """A split of generated tasks; families and difficulties alternate.

    Args:
        name: Name of the suite.
        families: Families by name, at least one.
        split: Split; the splits draw from disjoint seeds.
        size: Number of tasks; None for a million (train) or 2,000 (test).
    """

    def __init__(
        self, name: str, families: Mapping[str, Family], *, split: Split, size: int | None = None
    ) -> None:
        if not families:
            raise ValueError(f"suite {name!r} has no family; register one with register_family")
        self.name = name
        self.split: Split = split
        self._families = dict(families)
        self._size = SIZES[split] if size is None else size

    @property
    def families(self) -> tuple[str, ...]:
        """Names of the families."""
        return tuple(self._families)

    def indices_of(self, family: str) -> Sequence[int]:
        """Return the indices of a family's tasks, without drawing them."""
        names = self.families
        return range(names.index(family), len(self), len(names)) if family in names else ()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int, /) -> Task:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}/{self.split} holds tasks 0 to {len(self) - 1}: {index}")
        place, family = divmod(index, len(self._families))
        return self._draw(
            self.families[family],
            DIFFICULTIES[place % len(DIFFICULTIES)],
            place // len(DIFFICULTIES),
        )

    def task(self, task_id: str) -> Task:
        """Draw the task with an id such as ``shades/red/train/easy/0``.

        Raises:
            KeyError: The split does not have the id.
        """
        suite, family, split, difficulty, seed = [*task_id.split("/"), *[""] * 5][:5]
        is_ours = (suite, split) == (self.name, self.split) and family in self._families
        if not is_ours or difficulty not in set(DIFFICULTIES) or not seed.isdecimal():
            raise KeyError(f"no task {task_id!r} in {self.name}/{self.split}")
        return self._draw(family, Difficulty(difficulty), int(seed))

    def _draw(self, family: str, difficulty: Difficulty, seed: int) -> Task:
        stream = [
            zlib.crc32(family.encode()),
            DIFFICULTIES.index(difficulty),
            self.split == "test",
            seed,
        ]
        item = self._families[family](np.random.default_rng(stream), difficulty)
        images = item.images if isinstance(item.images, tuple) else (item.images,)
        return Task(
            id=f"{self.name}/{family}/{self.split}/{difficulty}/{seed}",
            suite=self.name,
            family=family,
            split=self.split,
            question=item.question,
            images=tuple(as_rgb(image) for image in images),
            answer=item.answer,
            answer_kind=item.answer_kind,
            tolerance=item.tolerance,
            choices=item.choices,
            difficulty=difficulty,
            needs_picture=item.needs_picture,
            provenance={"seed": str(seed), **item.provenance},
        )
