"""Tasks read before anything is played, so that every damaged image is named at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..types import Task
from .base import Suite
from .formats.bad_rows import BadImageError, bad_rows


def read_tasks(
    suite: Suite, indices: Iterable[int], *, on_task: Callable[[int], None] | None = None
) -> list[Task]:
    """Return the tasks of some indices, their pictures decoded.

    Args:
        suite: Which suite.
        indices: Of the tasks, in the order wanted.
        on_task: Told how many there are so far.

    Raises:
        SuiteError: Images of a file's rows are damaged; it names all of them.
    """
    tasks: list[Task] = []
    damaged: list[BadImageError] = []
    for index in indices:
        try:
            tasks.append(suite[index])
        except BadImageError as error:
            damaged.append(error)
        if on_task is not None:
            on_task(len(tasks))
    if damaged:
        raise bad_rows(damaged[0].file, [(error.line, error.reason) for error in damaged])
    return tasks
