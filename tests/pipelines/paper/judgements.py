"""Made-up results of the arms of an experiment."""

import numpy as np

from experiments.paper.figures import Judged


def judged(right, *, calls=None, ran=None, difficulties=None, families=None):
    count = len(right)
    accuracy = np.array(right, float)
    return Judged(
        tasks=tuple(f"t{n}" for n in range(count)),
        difficulties=tuple(difficulties or ["hard"] * count),
        families=tuple(families or ["bars"] * count),
        values={
            "accuracy": accuracy,
            "tool_calls": np.array(calls or [0] * count, float) + 0 * accuracy,
            "execution_success": np.array(ran or [0] * count, float) + 0 * accuracy,
        },
        lost=int(np.isnan(accuracy).sum()),
    )


def figures_of(**arms):
    """Return figures by arm from its right answers, one list per seed; equal in both modes."""
    return {
        (arm, seed, mode): judged(right)
        for arm, seeds in arms.items()
        for seed, right in enumerate(seeds)
        for mode in ("greedy", "sampled")
    }
