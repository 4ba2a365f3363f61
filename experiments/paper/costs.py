"""What a piece of work takes: by those that are done, and until then by the protocol's guesses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from codedance.pipelines.tracking.metrics_file import read_seconds

from .plan import Node
from .protocol import Sizes
from .records import Records, is_done

MODES = 2
"""An evaluation judges each task greedily and sampled."""


def remaining_seconds(sizes: Sizes, left: Sequence[tuple[int, Node]], records: Records) -> float:
    """Return how long the nodes that are left will take, one after the other."""
    seen: defaultdict[str, list[float]] = defaultdict(list)
    for (_, name), run in records.items():
        if is_done(run):
            seen[name].append(run.seconds)
            seen[run.stage].append(run.seconds)
    return sum(_expected(sizes, node, seen) for _, node in left)


def _expected(sizes: Sizes, node: Node, seen: dict[str, list[float]]) -> float:
    """Return a node's time: its own with other seeds, else its stage's, else the guess."""
    known = seen.get(node.name) or seen.get(node.stage)
    if known:
        return sum(known) / len(known)
    preset, guess = sizes.preset, sizes.seconds
    return {
        "curate": guess.curate,
        "sft": guess.sft * preset.sft.steps,
        "grpo": guess.grpo * preset.grpo.steps,
        "evaluate": guess.episode * MODES * preset.evaluate.limit,
    }[node.stage]


def steps_within(seconds: float, *, like: Path) -> int:
    """Return how many steps take so long, by the mean step of the training in the folder ``like``."""
    times = read_seconds(like)
    return max(1, round(seconds / (sum(times) / len(times))))


def training_seconds(folder: Path) -> float:
    """Return how long all steps of a training took, pauses left out."""
    return sum(read_seconds(folder))
