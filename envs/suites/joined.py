"""Concatenation of several suites of one split."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from ..types import Task
from .base import Split, Suite
from .family_indices import family_indices


class JoinedSuite:
    """The tasks of several suites; name and split are those of the first."""

    def __init__(self, suites: Sequence[Suite]) -> None:
        self._suites = tuple(suites)
        self._ends = list(accumulate(len(suite) for suite in suites))
        self.name: str = suites[0].name
        self.split: Split = suites[0].split

    @property
    def families(self) -> tuple[str, ...]:
        """Names of all families."""
        names = (family for suite in self._suites for family in suite.families)
        return tuple(dict.fromkeys(names))

    def indices_of(self, family: str) -> Sequence[int]:
        """Return the indices of a family's tasks, suite by suite."""
        starts = (0, *self._ends)
        parts = [
            _shifted(family_indices(suite, [family])[family], start)
            for suite, start in zip(self._suites, starts, strict=False)
            if family in suite.families
        ]
        return parts[0] if len(parts) == 1 else [index for part in parts for index in part]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int, /) -> Task:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}/{self.split} holds tasks 0 to {len(self) - 1}: {index}")
        place = bisect_right(self._ends, index)
        return self._suites[place][index - (self._ends[place - 1] if place else 0)]

    def task(self, task_id: str) -> Task:
        """Return the task with an id, from the first suite that has it.

        Raises:
            KeyError: No suite has it.
        """
        for suite in self._suites[:-1]:
            try:
                return suite.task(task_id)
            except KeyError:
                continue
        return self._suites[-1].task(task_id)


def _shifted(indices: Sequence[int], start: int) -> Sequence[int]:
    if isinstance(indices, range):  # stays a range
        return range(indices.start + start, indices.stop + start, indices.step)
    return [start + index for index in indices]
