"""Adaptive curriculum: tasks are drawn by how much their group is likely to teach.

A group of which all or none are right has no spread and teaches nothing, so a task's learnability
is 4p(1 - p), p the share of its samples that are expected to be right. p is estimated from the
task's own samples (this run's groups, earlier runs of the store), held by those of its kind
(suite, family, band), held by one half. Older samples fade, since the policy changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....envs.types import Task


@dataclass(frozen=True, slots=True)
class PassRecord:
    """What is known of a task from before: samples right, and samples scored."""

    right: float
    scored: float


History = Mapping[str, PassRecord]
"""By task id."""

FLOOR = 0.05
"""Weight of a task that teaches nothing, so that none is given up for good."""
KIND_HOLDS = 4.0
"""Samples that the estimate of its kind weighs in a task's."""
HALF_HOLDS = 4.0
"""Samples that one half weighs in a kind's."""
HISTORY_HOLDS = 4.0
"""Samples that all of a task's history may weigh: another policy made it."""
FADES = 0.95
"""What is left of a sample's weight after each later group of its task, or of its kind."""


def learnability(accuracies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 4p(1 - p): 1 at one half, 0 where all or none are right.

    >>> learnability(np.array([0.5, 1.0])).tolist()
    [1.0, 0.0]
    """
    return 4.0 * accuracies * (1.0 - accuracies)


class Curriculum:
    """Estimates by task and kind, and draws by them.

    Args:
        tasks: All of them; an index is a place in this sequence.
        seed: Of the draws.
        history: What is known from before.
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

    def draw(self, drawn: int, candidates: Sequence[int], taken: Sequence[int]) -> int:
        """Return the next task's index.

        Args:
            drawn: How many were drawn before: with the seed it decides the draw.
            candidates: Indices to choose from.
            taken: Indices not to be chosen again, unless nothing else is left.
        """
        free = np.setdiff1d(np.array(candidates), np.array(taken, dtype=np.int64))
        pool = free if len(free) else np.array(candidates)
        weights = FLOOR + (1.0 - FLOOR) * learnability(self.accuracies()[pool])
        bounds = np.cumsum(weights)
        point = np.random.default_rng([self._seed, drawn]).random() * bounds[-1]
        return int(pool[min(int(np.searchsorted(bounds, point, "right")), len(pool) - 1)])

    def learn(self, task_id: str, accuracies: Sequence[float]) -> None:
        """Take in the accuracies of a group's scored members."""
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
        """Return the estimates as plain lists, for a snapshot."""
        return {"tasks": self._tasks.tolist(), "kinds": self._kinds.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self._tasks = np.array(state["tasks"])
        self._kinds = np.array(state["kinds"])

    def _remember(self, task_id: str, record: PassRecord) -> None:
        """Take in a task's history, cut down to a few samples; unknown tasks are left aside."""
        place = self._places.get(task_id)
        if place is None or record.scored <= 0.0:
            return
        weight = min(record.scored, HISTORY_HOLDS)
        found = np.array([record.right / record.scored * weight, weight])
        self._tasks[:, place] += found
        self._kinds[:, self._kind_of[place]] += found
