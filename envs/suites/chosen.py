"""Only some families of a suite, in turns."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import Task
from .suite import Split, Suite, SuiteError


class ChosenFamilies:
    """The tasks of some families of a suite; the families alternate.

    Args:
        suite: Of which suite.
        families: At least one of its `Suite.families`.

    Raises:
        SuiteError: The suite has no such family.
    """

    def __init__(self, suite: Suite, families: Sequence[str]) -> None:
        unknown = [name for name in families if name not in suite.families]
        if unknown or not families:
            known = ", ".join(suite.families)
            raise SuiteError(f"no families {unknown} in {suite.name!r}: choose from {known}")
        self.name: str = suite.name
        self.split: Split = suite.split
        self.families: tuple[str, ...] = tuple(families)
        self._suite = suite

    def __len__(self) -> int:
        return max(1, len(self._suite) // len(self._suite.families)) * len(self.families)

    def __getitem__(self, index: int, /) -> Task:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}/{self.split} holds tasks 0 to {len(self) - 1}: {index}")
        place, number = divmod(index, len(self.families))
        wanted = self.families[number]
        # Generated suites take their families in turns, so the first look finds it.
        start = place * len(self._suite.families) + self._suite.families.index(wanted)
        for step in range(len(self._suite)):
            task = self._suite[(start + step) % len(self._suite)]
            if task.family == wanted:
                return task
        raise SuiteError(f"{self.name}/{self.split} has no task of the family {wanted!r}")

    def task(self, task_id: str) -> Task:
        """Give the task of an id.

        Raises:
            KeyError: It is none of the suite's, or of another family.
        """
        task = self._suite.task(task_id)
        if task.family not in self.families:
            raise KeyError(f"{task_id!r} is of none of the families {', '.join(self.families)}")
        return task
