"""What every suite is: a sequence of tasks under a name and a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from ..types import Task

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


class SuiteError(ValueError):
    """A suite cannot be had; the message says what was wrong and what to change."""


class Suite(Protocol):
    """Tasks by index (the same index, the same task, on any machine) and by id."""

    @property
    def name(self) -> str:
        """Name under which `load_suite` finds it."""
        ...

    @property
    def split(self) -> Split:
        """Which split the tasks are of."""
        ...

    @property
    def families(self) -> tuple[str, ...]:
        """Kinds of question in it."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Task: ...

    def task(self, task_id: str) -> Task:
        """Return the task of an id; a `KeyError` if it is none of this split."""
        ...


@runtime_checkable
class IndexedSuite(Suite, Protocol):
    """A suite that knows where the tasks of a family lie without reading them."""

    def indices_of(self, family: str) -> Sequence[int]:
        """Return the indices of a family's tasks, in order; empty if there is none."""
        ...
