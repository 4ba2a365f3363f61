"""A selection of families of a suite, alternating, each of their tasks once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ..types import Task
from .base import Split, Suite, SuiteError
from .family_indices import family_indices


class ChosenFamilies:
    """The tasks of some families of a suite, every one exactly once.

    The families alternate for as long as each has tasks left; where one has more than the others,
    its last tasks come at the end. The indices come from an `IndexedSuite`; for any other suite,
    every task is read once.

    Args:
        suite: Suite to select from.
        families: Families to select, at least one of `Suite.families`.

    Raises:
        SuiteError: The suite does not have a family, or has no task of it.
    """

    def __init__(self, suite: Suite, families: Sequence[str]) -> None:
        chosen = (families,) if isinstance(families, str) else tuple(dict.fromkeys(families))
        unknown = [name for name in chosen if name not in suite.families]
        if unknown or not chosen:
            known = ", ".join(suite.families)
            raise SuiteError(f"no families {unknown} in {suite.name!r}: choose from {known}")
        self.name: str = suite.name
        self.split: Split = suite.split
        self.families: tuple[str, ...] = chosen
        self._suite: Suite = suite._suite if isinstance(suite, ChosenFamilies) else suite
        self._indices = family_indices(self._suite, chosen)
        for family, indices in self._indices.items():
            if not indices:
                raise SuiteError(f"{self.name}/{self.split} has no task of the family {family!r}")
        self._stretches = _stretches({name: len(found) for name, found in self._indices.items()})
        self._ends = list(accumulate(stretch.size for stretch in self._stretches))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int, /) -> Task:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}/{self.split} holds tasks 0 to {len(self) - 1}: {index}")
        number = bisect_right(self._ends, index)
        offset = index - (self._ends[number - 1] if number else 0)
        family, place = self._stretches[number].locate(offset)
        return self._suite[self._indices[family][place]]

    def task(self, task_id: str) -> Task:
        """Return the task with an id.

        Raises:
            KeyError: The suite does not have the task, or it is of another family.
        """
        task = self._suite.task(task_id)
        if task.family not in self.families:
            raise KeyError(f"{task_id!r} is of none of the families {', '.join(self.families)}")
        return task


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Consecutive rounds over the same families.

    Attributes:
        families: Families that have tasks left, in order.
        first: Index, within each family, of the task in the first round.
        rounds: Number of rounds.
    """

    families: tuple[str, ...]
    first: int
    rounds: int

    @property
    def size(self) -> int:
        return len(self.families) * self.rounds

    def locate(self, offset: int) -> tuple[str, int]:
        """Return the family at an offset, and the index of the task within the family."""
        number, turn = divmod(offset, len(self.families))
        return self.families[turn], self.first + number


def _stretches(counts: Mapping[str, int]) -> list[_Stretch]:
    """Split the rounds wherever a family has no task left.

    >>> [(one.families, one.rounds) for one in _stretches({"a": 9, "b": 1})]
    [(('a', 'b'), 1), (('a',), 8)]
    """
    return [
        _Stretch(tuple(name for name, count in counts.items() if count > first), first, end - first)
        for first, end in pairwise(sorted({0, *counts.values()}))
    ]
