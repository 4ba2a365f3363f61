"""The interface of a suite: a sequence of tasks with a name and a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from ..types import Task

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


class SuiteError(ValueError):
    """A suite cannot be loaded; the message says what is wrong and what to change."""


class Suite(Protocol):
    """Tasks by index (the same task on any machine) and by id."""

    @property
    def name(self) -> str:
        """Name of the suite for `load_suite`."""
        ...

    @property
    def split(self) -> Split:
        """Split of the tasks."""
        ...

    @property
    def families(self) -> tuple[str, ...]:
        """Families of the suite: its kinds of question."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Task: ...

    def task(self, task_id: str) -> Task:
        """Return the task with an id; raises `KeyError` if the split does not have it."""
        ...


@runtime_checkable
class IndexedSuite(Suite, Protocol):
    """A suite that provides the indices of a family's tasks without reading them."""

    def indices_of(self, family: str) -> Sequence[int]:
        """Return the indices of a family's tasks, in order; empty without any."""
        ...
