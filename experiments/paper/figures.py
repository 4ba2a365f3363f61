"""Metrics of each arm on each held-out task, by seed, read from the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from codedance.pipelines.store.episodes import Episode
from codedance.pipelines.store.store import Store
from numpy.typing import NDArray

from .nodes import JUDGED
from .plan import judging
from .protocol import Metric, Protocol
from .records import Records, is_done

Floats = NDArray[np.float64]
MODES = ("greedy", "sampled")


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Metrics of one arm, seed and mode by task, in a fixed order; lost episodes are NaN.

    Attributes:
        tasks: Keys of the tasks.
        difficulties: Difficulties of the tasks.
        families: Families of the tasks.
        values: Values by metric, ``(tasks,)``; ``execution_success`` counts successful calls.
        lost: Number of episodes lost to our infrastructure.
    """

    tasks: tuple[str, ...]
    difficulties: tuple[str, ...]
    families: tuple[str, ...]
    values: Mapping[Metric, Floats]
    lost: int

    def mask(self, wanted: Sequence[str], difficulty: str | None = None) -> NDArray[np.bool_]:
        """Return a mask of the tasks of the wanted difficulties or families; all if none is named.

        With ``difficulty``, only tasks of that difficulty.
        """
        return np.array(
            [
                (not wanted or b in wanted or f in wanted) and difficulty in (None, b)
                for b, f in zip(self.difficulties, self.families, strict=True)
            ]
        )

    def level(
        self, metric: Metric, wanted: Sequence[str] = (), *, difficulty: str | None = None
    ) -> float:
        """Return a metric over the wanted tasks (`mask`); NaN if nothing was counted."""
        mask = self.mask(wanted, difficulty)
        chosen = self.values[metric][mask]
        chosen = chosen[np.isfinite(chosen)]
        if metric == "execution_success":
            calls = float(np.nansum(self.values["tool_calls"][mask]))
            return float(chosen.sum()) / calls if calls else float("nan")
        return float(chosen.mean()) if len(chosen) else float("nan")


Figures = Mapping[tuple[str, int, str], Judged]
"""Metrics by arm, seed and mode."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Difference between two arms in one seed, over the tasks that both were scored on.

    Attributes:
        mean: Mean of the differences by task.
        better: Number of tasks on which the first arm is above.
        worse: Number of tasks on which the first arm is below.
    """

    mean: float
    better: int
    worse: int


def read_figures(
    store: Store, protocol: Protocol, records: Records, seeds: Iterable[int]
) -> dict[tuple[str, int, str], Judged]:
    """Read all finished evaluations."""
    found: dict[tuple[str, int, str], Judged] = {}
    for seed in seeds:
        for arm in protocol.arms:
            run = records.get((seed, judging(arm.name)))
            if run is None or not is_done(run):
                continue
            for mode in MODES:
                episodes = store.episodes(run.id, f"{JUDGED}/{mode}")
                found[arm.name, seed, mode] = _judged(episodes)
    return found


def gap(first: Judged, second: Judged, metric: Metric, wanted: Sequence[str] = ()) -> Gap:
    """Compare two arms task by task.

    Raises:
        ValueError: They were not evaluated on the same tasks.
    """
    if first.tasks != second.tasks:
        raise ValueError("the arms were evaluated on different tasks")
    if metric == "execution_success":
        return Gap(first.level(metric, wanted) - second.level(metric, wanted), 0, 0)
    apart = (first.values[metric] - second.values[metric])[first.mask(wanted)]
    apart = apart[np.isfinite(apart)]
    mean = float(apart.mean()) if len(apart) else float("nan")
    return Gap(mean, int((apart > 0).sum()), int((apart < 0).sum()))


def _judged(episodes: Sequence[Episode]) -> Judged:
    ordered = sorted(episodes, key=lambda e: (e.task_key, e.sample))
    valid = [e.is_valid and e.accuracy is not None for e in ordered]

    def column(values: Iterable[float]) -> Floats:
        return np.array([v if ok else np.nan for v, ok in zip(values, valid, strict=True)])

    return Judged(
        tasks=tuple(e.task_key for e in ordered),
        difficulties=tuple(str(e.difficulty) for e in ordered),
        families=tuple(e.family for e in ordered),
        values={
            "accuracy": column(e.accuracy or 0.0 for e in ordered),
            "tool_calls": column(e.tool_calls for e in ordered),
            "execution_success": column(e.tool_successes for e in ordered),
        },
        lost=valid.count(False),
    )
