"""Comparison of checkpoints on held-out tasks, task by task.

The results are an artifact of the evaluation in MLflow, so that a later run, on any machine, can
be compared with the current champion on the same tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..store.lineage import StageRun
from ..store.store import Store
from .results import by_task
from .statistics import paired_difference

FILE_NAME = "held_out.json"
MODE = "greedy"
"""One answer per task, as in use."""
LEAST_SHARED = 0.9
"""Minimum share of either model's tasks that both were evaluated on."""
SIGNIFICANCE = 0.05

Results = Mapping[str, float]
"""Accuracy by task; a task's key identifies its content."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of comparing a challenger with the champion on the same tasks.

    Attributes:
        is_better: Whether it becomes the champion.
        reason: Figures that explain the decision.
    """

    is_better: bool
    reason: str


def write_results(store: Store, run: StageRun, path: Path) -> None:
    """Write the accuracy of each policy on each held-out task, decoded greedily."""
    episodes = store.episodes(run.id)
    phases = dict.fromkeys(e.phase for e in episodes)
    found = {
        phase.partition("/")[0]: by_task(episodes, phase)
        for phase in phases
        if phase.endswith(f"/{MODE}")
    }
    path.write_text(json.dumps({"run": run.id, "policies": found}), encoding="utf-8")


def read_results(path: Path) -> dict[str, Results]:
    """Return the results of each policy."""
    return json.loads(path.read_text(encoding="utf-8"))["policies"]


def compare(champion: Results, challenger: Results) -> Verdict:
    """Decide whether a challenger is better: more tasks right, by the two-sided exact sign test.

    Only tasks on which the two differ count; under the null hypothesis each wins half of them.

    >>> compare({"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 1.0}).reason
    '2 tasks paired: better on 1, worse on 0, +50.0 points, p = 1'
    """
    shared = sorted(champion.keys() & challenger.keys())
    if len(shared) < LEAST_SHARED * max(len(champion), len(challenger), 1):
        return Verdict(
            False,
            f"not comparable: {len(shared)} tasks in common, of {len(champion)} and "
            f"{len(challenger)}",
        )
    before, after = [champion[key] for key in shared], [challenger[key] for key in shared]
    found = paired_difference(before, after)
    chance = sign_test(found.better, found.worse)
    text = (
        f"{found.count} tasks paired: better on {found.better}, worse on {found.worse}, "
        f"{100 * found.mean:+.1f} points, p = {chance:.2g}"
    )
    return Verdict(found.better > found.worse and chance < SIGNIFICANCE, text)


def sign_test(better: int, worse: int) -> float:
    """Return the two-sided p-value of a split when both sides are equally likely.

    >>> round(sign_test(9, 1), 4)
    0.0215
    """
    from scipy.stats import binomtest  # most of a second, so not with the module

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
