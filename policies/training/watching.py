"""The alarms of a training in any loop: TRL's, verl's, or one of your own.

`AlarmWatch` takes the metrics of a step under the trainer's own names, or the trajectories of the
step; `trainer_callback` has a callback for trainers that are built on transformers'.

Metrics that it knows, besides our own:

* TRL: ``tools/call_frequency``, ``tools/failure_frequency``, ``reward`` and ``reward_std``,
  ``rewards/<function>/std``, ``frac_reward_zero_std``, ``entropy``, ``sampling/…``;
* verl: ``tool_call_counts/mean``, ``critic/score/mean``, ``…/min``, ``…/max``, ``actor/entropy``.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from ...envs.rewards.terms import is_scored
from ...envs.types import Trajectory
from .grpo.alarms import SAME, Alarm, AlarmBoard, AlarmConfig
from .grpo.metrics import trajectory_metrics

NAMES: Mapping[str, str] = {
    "tools/call_frequency": "tool_calls/mean",
    "tool_call_counts/mean": "tool_calls/mean",
    "reward_std": "rewards/total/std",
    "critic/score/mean": "rewards/total/mean",
    "actor/entropy": "entropy",
    **{
        f"sampling/sampling_logp_difference/{name}": f"sampling_logp_difference/{name}"
        for name in ("mean", "max")
    },
}
"""Our names of metrics by the names of TRL and verl."""
_WATCHED = (
    "accuracy",
    "entropy",
    "execution_success",
    "frac_reward_zero_std",
    "importance_sampling_ratio/",
    "infrastructure_share",
    "rewards/",
    "sampling_logp_difference/",
    "session_loss_share",
    "tool_calls/mean",
)

EQUAL = "frac_reward_zero_std"
_logger = logging.getLogger(__name__)


def log_alarm(alarm: Alarm) -> None:
    """Log an alarm as a warning of the logger ``codedance.policies.training.watching``."""
    _logger.warning("ALARM at step %d: %s", alarm.step, alarm.message)


class AlarmWatch:
    """Alarms of one training run in any loop.

    Args:
        config: Alarm thresholds; a step is one call, however many updates a trainer logs at once.
        on_alarm: Called with each alarm.
        names: Our names by further names of the trainer's metrics: ``{"my/calls":
            "tool_calls/mean"}``.
        idle_terms: Reward terms that are constant by the reward's own rule.
    """

    def __init__(
        self,
        config: AlarmConfig | None = None,
        *,
        on_alarm: Callable[[Alarm], None] = log_alarm,
        names: Mapping[str, str] | None = None,
        idle_terms: frozenset[str] = frozenset(),
    ) -> None:
        self._board = AlarmBoard(config or AlarmConfig(), idle_terms)
        self._on_alarm = on_alarm
        self._names = {**NAMES, **(names or {})}

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> list[Alarm]:
        """Process the metrics of a step, under any names; return the alarms that begin with it.

        Values that are no finite numbers, and metrics that no alarm watches, are left out; a step
        without any other (an evaluation) counts for nothing.
        """
        found = self._board.observe(step, known) if (known := self._translated(metrics)) else []
        for alarm in found:
            self._on_alarm(alarm)
        return found

    def observe_trajectories(self, step: int, trajectories: Sequence[Trajectory]) -> list[Alarm]:
        """Process the trajectories of a step; return the alarms that begin with it."""
        if not trajectories:
            return []
        metrics = trajectory_metrics(trajectories)
        share = equal_share(trajectories)
        return self.observe(step, metrics | ({} if share is None else {EQUAL: share}))

    def replay(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Process a step of the run before it was resumed, without reporting its alarms."""
        if known := self._translated(metrics):
            self._board.observe(step, known)

    def _translated(self, metrics: Mapping[str, float | None]) -> dict[str, float]:
        finite = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        found = {self._names.get(name, name): value for name, value in finite.items()}
        if found.get("tool_calls/mean") and "tools/failure_frequency" in finite:
            found["execution_success"] = 1.0 - finite["tools/failure_frequency"]
        if "reward_std" in finite and "reward" in finite:
            found["rewards/total/mean"] = finite["reward"]
        if "critic/score/max" in finite and "critic/score/min" in finite:
            found["rewards/total/std"] = finite["critic/score/max"] - finite["critic/score/min"]
        return {name: value for name, value in found.items() if name.startswith(_WATCHED)}


def equal_share(trajectories: Sequence[Trajectory]) -> float | None:
    """Return the share of tasks whose siblings earned the same; None without any siblings."""
    rewards: defaultdict[str, list[float]] = defaultdict(list)
    for one in trajectories:
        if is_scored(one):
            rewards[one.task_id].append(one.reward or 0.0)
    groups = [values for values in rewards.values() if len(values) > 1]
    if not groups:
        return None
    return sum(max(values) - min(values) <= SAME for values in groups) / len(groups)
