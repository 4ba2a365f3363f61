"""Time of a node: the mean of finished ones, and until then the protocol's estimates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from codedance.pipelines.tracking.metrics_file import read_seconds

from .plan import Node
from .protocol import Sizes
from .records import Records, is_done

MODES = 2
"""Number of decoding modes in an evaluation: greedy and sampled."""


def remaining_seconds(sizes: Sizes, left: Sequence[tuple[int, Node]], records: Records) -> float:
    """Return the expected time of the remaining nodes, one after the other, in seconds."""
    seen: defaultdict[str, list[float]] = defaultdict(list)
    for (_, name), run in records.items():
        if is_done(run):
            seen[name].append(run.seconds)
            seen[run.stage].append(run.seconds)
    return sum(_expected(sizes, node, seen) for _, node in left)


def _expected(sizes: Sizes, node: Node, seen: dict[str, list[float]]) -> float:
    """Return a node's expected time: its mean over seeds, else its stage's, else the estimate."""
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
    """Return the number of steps in a time, by the mean step of the training in folder ``like``."""
    times = read_seconds(like)
    return max(1, round(seconds / (sum(times) / len(times))))


def training_seconds(folder: Path) -> float:
    """Return the time of all steps of a training in seconds, without pauses."""
    return sum(read_seconds(folder))
