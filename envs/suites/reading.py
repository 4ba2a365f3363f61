"""Reading of tasks before any episode, so that all damaged images are reported together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..types import Task
from .base import Suite
from .formats.bad_rows import BadImageError, bad_rows


def read_tasks(
    suite: Suite, indices: Iterable[int], *, on_task: Callable[[int], None] | None = None
) -> list[Task]:
    """Return the tasks at some indices, their images decoded.

    Args:
        suite: Suite to read from.
        indices: Indices of the tasks, in the order of the result.
        on_task: Callback with the number of tasks read so far.

    Raises:
        SuiteError: Images of a file's rows are damaged; the message names all of them.
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
