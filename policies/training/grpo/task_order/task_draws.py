"""Draws of training tasks: by number, in an order that the seed decides, or by learnability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .....envs.rewards.terms import is_scored
from .....envs.types import Difficulty, Task, Trajectory
from ..config import GRPOConfig
from .curriculum import Curriculum, History

_SPARE = 1
"""Marks the random numbers of spare tasks; those of the tasks themselves have no mark."""


class TaskDraws:
    """Draws tasks for groups, and spare ones that replace groups without advantages.

    Without a curriculum a draw is a function of the seed and of its number.

    Args:
        tasks: All tasks; an epoch is a permutation.
        config: Settings of the run.
        drawn: Number of tasks drawn before, for a resumed run.
        history: Results of earlier runs on the tasks, for a curriculum by learnability.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        config: GRPOConfig,
        *,
        drawn: int = 0,
        history: History | None = None,
    ) -> None:
        self._tasks = tasks
        self._config = config
        self._drawn = drawn
        self._taken: list[int] = []
        self._curriculum = None
        if config.curriculum == "learnability":
            self._curriculum = Curriculum(tasks, seed=config.seed, history=history)

    def begin_step(self) -> None:
        """Begin a step: with a curriculum, no task is drawn twice in one."""
        self._taken.clear()

    def next(self) -> Task:
        """Return the next task."""
        return self._tasks[self.next_place()]

    def next_place(self) -> int:
        """Return the next task's index, by ``easy_share`` and, where set, by learnability."""
        drawn, self._drawn = self._drawn, self._drawn + 1
        return self._draw(drawn)

    def spare_place(self, number: int) -> int:
        """Return the index of a spare task; the tasks of later draws stay the same.

        Args:
            number: Number of the spare task within the run, from 0.
        """
        return self._draw(number, _SPARE)

    def learn(self, trajectories: Sequence[Trajectory]) -> None:
        """Update the curriculum with a group's accuracies; no effect where nothing was scored."""
        accuracies = [one.accuracy or 0.0 for one in trajectories if is_scored(one)]
        if accuracies and self._curriculum is not None:
            self._curriculum.learn(trajectories[0].task_id, accuracies)

    def state(self) -> dict[str, Any]:
        """Return the state for a resumed run: number of drawn tasks, and estimates of them."""
        curriculum = None if self._curriculum is None else self._curriculum.state()
        return {"drawn": self._drawn, "curriculum": curriculum}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a result of `state`."""
        self._drawn = int(state["drawn"])
        if self._curriculum is not None:
            self._curriculum.restore(state["curriculum"])

    def _draw(self, number: int, *mark: int) -> int:
        pool, position = self._pool(number)
        if self._curriculum is None:
            epoch, place = divmod(position, len(pool))
            order = np.random.default_rng([self._config.seed, epoch, *mark]).permutation(len(pool))
            return pool[int(order[place])]
        chosen = self._curriculum.draw([number, *mark], pool, self._taken)
        self._taken.append(chosen)
        return chosen

    def _pool(self, drawn: int) -> tuple[list[int], int]:
        """Return the task indices to draw from, and the number of earlier draws among them."""
        share = self._config.easy_share
        everything = list(range(len(self._tasks)))
        easy = [place for place in everything if self._tasks[place].difficulty is Difficulty.EASY]
        if share is None or not 0 < len(easy) < len(everything):
            return everything, drawn
        before = math.floor(drawn * share)
        if math.floor((drawn + 1) * share) > before:
            return easy, before
        return sorted(set(everything) - set(easy)), drawn - before
