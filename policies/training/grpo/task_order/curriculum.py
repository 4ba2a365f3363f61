"""Adaptive curriculum: tasks are drawn by the expected learning signal of their group.

A group of which all or none are right has equal rewards and no gradient. A task's learnability is
therefore 4p(1 - p), where p is the expected share of right samples. p is estimated from the task's
own samples (this run's groups, earlier runs of the store), with those of its kind (suite, family,
difficulty) as a prior, and one half as the prior of the kind. Older samples are discounted, since
the policy changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .....envs.types import Task


@dataclass(frozen=True, slots=True)
class PassRecord:
    """Earlier results of a task: number of right samples, and of scored samples."""

    right: float
    scored: float


History = Mapping[str, PassRecord]
"""Earlier results by task id."""

FLOOR = 0.05
"""Weight of a task with learnability 0, so that no task is excluded for good."""
KIND_HOLDS = 4.0
"""Weight of the kind's estimate in a task's estimate, in samples."""
HALF_HOLDS = 4.0
"""Weight of one half in a kind's estimate, in samples."""
HISTORY_HOLDS = 4.0
"""Largest weight of a task's history, in samples: it comes from another policy."""
FADES = 0.95
"""Discount of a sample's weight per later group of its task, or of its kind."""


def learnability(accuracies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 4p(1 - p): 1 at one half, 0 where all or none are right.

    >>> learnability(np.array([0.5, 1.0])).tolist()
    [1.0, 0.0]
    """
    return 4.0 * accuracies * (1.0 - accuracies)


class Curriculum:
    """Accuracy estimates by task and kind, and draws according to them.

    Args:
        tasks: All tasks; an index is a position in this sequence.
        seed: Random seed of the draws.
        history: Results of earlier runs.
    """

    def __init__(self, tasks: Sequence[Task], *, seed: int, history: History | None = None) -> None:
        self._seed = seed
        self._places = {task.id: place for place, task in enumerate(tasks)}
        kinds = [f"{task.suite}/{task.family}/{task.difficulty.value}" for task in tasks]
        names = sorted(set(kinds))
        self._kind_of: NDArray[np.int64] = np.array([names.index(kind) for kind in kinds])
        self._tasks = np.zeros((2, len(tasks)))
        self._kinds = np.zeros((2, len(names)))
        for task_id, record in sorted((history or {}).items()):
            self._remember(task_id, record)

    def draw(self, number: Sequence[int], candidates: Sequence[int], taken: Sequence[int]) -> int:
        """Return the next task's index.

        Args:
            number: Numbers that identify the draw; together with the seed they decide it.
            candidates: Indices to choose from.
            taken: Indices to exclude, unless no others are left.
        """
        free = np.setdiff1d(np.array(candidates), np.array(taken, dtype=np.int64))
        pool = free if len(free) else np.array(candidates)
        weights = FLOOR + (1.0 - FLOOR) * learnability(self.accuracies()[pool])
        bounds = np.cumsum(weights)
        point = np.random.default_rng([self._seed, *number]).random() * bounds[-1]
        return int(pool[min(int(np.searchsorted(bounds, point, "right")), len(pool) - 1)])

    def learn(self, task_id: str, accuracies: Sequence[float]) -> None:
        """Update the estimates with the accuracies of a group's scored members."""
        place = self._places[task_id]
        kind = self._kind_of[place]
        found = np.array([sum(accuracies), float(len(accuracies))])
        self._tasks[:, place] = FADES * self._tasks[:, place] + found
        self._kinds[:, kind] = FADES * self._kinds[:, kind] + found

    def accuracies(self) -> NDArray[np.float64]:
        """Return the estimated accuracy of each task, ``(tasks,)``."""
        kinds = (self._kinds[0] + 0.5 * HALF_HOLDS) / (self._kinds[1] + HALF_HOLDS)
        prior = kinds[self._kind_of]
        return (self._tasks[0] + KIND_HOLDS * prior) / (self._tasks[1] + KIND_HOLDS)

    def state(self) -> dict[str, Any]:
        """Return the estimates as plain lists, for a saved state."""
        return {"tasks": self._tasks.tolist(), "kinds": self._kinds.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a result of `state`."""
        self._tasks = np.array(state["tasks"])
        self._kinds = np.array(state["kinds"])

    def _remember(self, task_id: str, record: PassRecord) -> None:
        """Add a task's history with the weight of a few samples; unknown tasks are ignored."""
        place = self._places.get(task_id)
        if place is None or record.scored <= 0.0:
            return
        weight = min(record.scored, HISTORY_HOLDS)
        found = np.array([record.right / record.scored * weight, weight])
        self._tasks[:, place] += found
        self._kinds[:, self._kind_of[place]] += found
