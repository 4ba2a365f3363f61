"""Estimates of trajectory length by kind of task, for equal shares of the processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .....envs.types import Task, Trajectory
from ...distributed.processes import balance

_FADES = 0.8
"""Weight of a kind's earlier mean against a new group."""


class LengthEstimator:
    """Running mean of tokens per trajectory, by suite and family."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def note(self, task: Task, trajectories: Sequence[Trajectory]) -> None:
        """Record the lengths of a task's trajectories; those without tokens count by turns."""
        lengths = [
            float(len(one.turns) if one.tokens is None else len(one.tokens.ids))
            for one in trajectories
        ]
        if not lengths:
            return
        mean = sum(lengths) / len(lengths)
        kind = _kind(task)
        known = self._means.get(kind, mean)
        self._means[kind] = _FADES * known + (1.0 - _FADES) * mean

    def shares(self, tasks: Sequence[Task], *, parts: int) -> list[list[int]]:
        """Divide tasks by expected length; all occurrences of a task stay in one share.

        Episode seeds count the occurrences of a task, so that they are the same in any division.
        """
        places: dict[str, list[int]] = {}
        for index, task in enumerate(tasks):
            places.setdefault(task.id, []).append(index)
        usual = sum(self._means.values()) / len(self._means) if self._means else 1.0
        expected = [
            len(own) * self._means.get(_kind(tasks[own[0]]), usual) for own in places.values()
        ]
        owned = list(places.values())
        return [
            sorted(place for index in share for place in owned[index])
            for share in balance(expected, parts=parts)
        ]

    def state(self) -> dict[str, float]:
        """Return the means, for a saved state."""
        return dict(self._means)

    def restore(self, state: Mapping[str, float]) -> None:
        """Restore a result of `state`."""
        self._means = dict(state)


def _kind(task: Task) -> str:
    return f"{task.suite}/{task.family}"
