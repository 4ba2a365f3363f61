"""Metrics of a training step from its trajectories and the clock, besides the trainer's own."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...envs.rewards.terms import is_scored
from ...envs.types import Task, Trajectory

QUANTILES = {"p50": 0.5, "p95": 0.95, "max": 1.0}


class StepFigures:
    """Collector of a step's metrics, which are returned once, at the end of the step.

    Args:
        clock: Clock in seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._begun: float | None = None
        self._sampled_at: float | None = None
        self._results: dict[str, float] = {}
        self._latencies: list[float] = []
        self._written = 0

    def sampled(self, tasks: Mapping[str, Task], trajectories: Sequence[Trajectory]) -> None:
        """Record the trajectories that were sampled in a step, before the update."""
        self._sampled_at = self._clock()
        self._results = {"trajectories": float(len(trajectories))}
        self._results |= by_kind(tasks, trajectories)
        calls = [turn for one in trajectories for turn in one.tool_turns]
        self._latencies = [turn.execution.wall_seconds for turn in calls if turn.execution]
        self._written = sum(sum(one.tokens.mask) for one in trajectories if one.tokens)

    def results(self) -> dict[str, float]:
        """Return the metrics that depend only on the trajectories."""
        return self._results

    def rates(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics that depend on the machine, and begin the next step.

        Args:
            metrics: Metrics of the trainer; ``tokens`` counts the tokens of supervised learning.
        """
        now = self._clock()
        figures = latency_figures(self._latencies)
        tokens = self._written or metrics.get("tokens", 0.0)
        if self._begun is not None and now > self._begun:
            whole = now - self._begun
            figures |= {"time/step_seconds": whole, "tokens_per_second": tokens / whole}
            if self._sampled_at is not None:
                figures["time/sampling_seconds"] = self._sampled_at - self._begun
                figures["time/update_seconds"] = now - self._sampled_at
                figures["trajectories_per_second"] = self._results["trajectories"] / whole
        self._begun, self._sampled_at = now, None
        self._results, self._latencies, self._written = {}, [], 0
        return figures


def by_kind(tasks: Mapping[str, Task], trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return accuracy and tool calls per scored episode, by family and by difficulty."""
    kinds: defaultdict[str, list[Trajectory]] = defaultdict(list)
    for one in trajectories:
        if is_scored(one):
            task = tasks[one.task_id]
            kinds[f"family/{task.family}"].append(one)
            kinds[f"difficulty/{task.difficulty}"].append(one)
    figures: dict[str, float] = {}
    for kind, some in sorted(kinds.items()):
        figures[f"accuracy/{kind}"] = sum(one.accuracy or 0.0 for one in some) / len(some)
        figures[f"tool_calls/{kind}"] = sum(len(one.tool_turns) for one in some) / len(some)
    return figures


def latency_figures(seconds: Sequence[float]) -> dict[str, float]:
    """Return quantiles of the sandbox's time per block, in milliseconds; empty without blocks."""
    if not seconds:
        return {}
    values = np.quantile(np.asarray(seconds), list(QUANTILES.values())) * 1000.0
    return {
        f"sandbox/latency_ms/{name}": float(value)
        for name, value in zip(QUANTILES, values, strict=True)
    }
