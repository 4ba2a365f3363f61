"""How checkpoints did on held-out tasks, task by task, and whether one is better than another.

The results lie beside an evaluation in MLflow, so that a later run, from whatever machine, can be
held against the present champion on the same tasks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..store.lineage import StageRun
from ..store.store import Store
from .results import by_task
from .statistics import paired_difference

FILE_NAME = "held_out.json"
MODE = "greedy"
"""One answer a task, as the model is used."""
LEAST_SHARED = 0.9
"""Share of the tasks of either that both must have been judged on."""
SIGNIFICANCE = 0.05

Results = Mapping[str, float]
"""Accuracy by task; a task's key names its content."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A challenger held against the champion on the same tasks.

    Attributes:
        is_better: Whether it takes the champion's place.
        reason: Why, or why not, in figures.
    """

    is_better: bool
    reason: str


def write_results(store: Store, run: StageRun, path: Path) -> None:
    """Write how each policy did on each held-out task, greedily."""
    episodes = store.episodes(run.id)
    phases = dict.fromkeys(e.phase for e in episodes)
    found = {
        phase.partition("/")[0]: by_task(episodes, phase)
        for phase in phases
        if phase.endswith(f"/{MODE}")
    }
    path.write_text(json.dumps({"run": run.id, "policies": found}), encoding="utf-8")


def read_results(path: Path) -> dict[str, Results]:
    """Return each policy's results."""
    return json.loads(path.read_text(encoding="utf-8"))["policies"]


def compare(champion: Results, challenger: Results) -> Verdict:
    """Say whether a challenger is better: more tasks right, by the exact sign test (two-sided).

    Only tasks on which the two differ count; were they equal, either would win half of those.

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
    """Return the two-sided probability of so uneven a split, were both sides as likely.

    >>> round(sign_test(9, 1), 4)
    0.0215
    """
    count = better + worse
    if count == 0:
        return 1.0
    tail = sum(_binomial(count, k) for k in range(max(better, worse), count + 1))
    return min(1.0, 2.0 * tail)


def _binomial(count: int, hits: int) -> float:
    """Return the chance of ``hits`` heads in ``count`` tosses."""
    logarithm = math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
    return math.exp(logarithm - count * math.log(2.0))
