"""A wrapper with a running estimate of mu, from which the reward derives the difficulty."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium

from .types import Task
from .visual_code import Observation, VisualCodeEnv, known_accuracy


class RunningAccuracy(
    gymnasium.Wrapper[Observation, str, Observation, str], gymnasium.utils.RecordConstructorArgs
):
    """Replaces the recorded pass rate by an estimate from this environment's own episodes.

    The estimate starts at the recorded rate (one half where unknown), with the weight of
    ``prior_weight`` episodes; the weight of older episodes decays by ``decay`` with each newer one.
    With it the reward depends on earlier episodes, which is why it is not the default.

    Args:
        env: Environment whose ``unwrapped`` is a `VisualCodeEnv`.
        by: Whether to estimate per ``task``, or per ``family`` and difficulty.
        prior_weight: Weight of the recorded rate, in episodes; above 0.
        decay: Decay per newer episode; above 0, at most 1 (no decay).
    """

    def __init__(
        self,
        env: gymnasium.Env[Observation, str],
        *,
        by: Literal["task", "family"] = "task",
        prior_weight: float = 2.0,
        decay: float = 0.95,
    ) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(
            self, by=by, prior_weight=prior_weight, decay=decay
        )
        gymnasium.Wrapper.__init__(self, env)
        if by not in ("task", "family"):
            raise ValueError(f"by is 'task' or 'family', got {by!r}")
        if not (prior_weight > 0.0 and 0.0 < decay <= 1.0):
            raise ValueError(f"need prior_weight > 0 and 0 < decay <= 1: {prior_weight}, {decay}")
        if not isinstance(env.unwrapped, VisualCodeEnv):
            raise TypeError(f"RunningAccuracy wraps a VisualCodeEnv, got {env.unwrapped!r}")
        self._inner = env.unwrapped
        self._inner.accuracy_of = self.estimate
        self._by = by
        self._prior_weight = prior_weight
        self._decay = decay
        self._right: dict[str, float] = {}
        self._scored: dict[str, float] = {}

    def estimate(self, task: Task) -> float:
        """Return the current estimate of mu of a task."""
        key = self._key(task)
        right = self._prior_weight * known_accuracy(task) + self._right.get(key, 0.0)
        return right / (self._prior_weight + self._scored.get(key, 0.0))

    def step(self, action: str) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Step the environment; count an episode that ended and was scored."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated and info["is_valid"]:
            key = self._key(self._inner.episode.task)
            self._right[key] = self._decay * self._right.get(key, 0.0) + info["is_success"]
            self._scored[key] = self._decay * self._scored.get(key, 0.0) + 1.0
        return observation, float(reward), terminated, truncated, info

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Return the estimates as plain values, for a checkpoint."""
        return {"right": dict(self._right), "scored": dict(self._scored)}

    def load_state_dict(self, state: dict[str, dict[str, float]]) -> None:
        """Restore the estimates from `state_dict`."""
        self._right = dict(state["right"])
        self._scored = dict(state["scored"])

    def _key(self, task: Task) -> str:
        if self._by == "task":
            return task.id
        return f"{task.suite}/{task.family}/{task.difficulty.value}"
