"""Distillation against GRPO: accuracy on held-out tasks before and after the same number of steps.

    python -m benchmarks.distillation

The student is the shipped nano model with noise on its layers, the teacher is the shipped model.
One training learns from rewards alone (GRPO), one from the teacher alone (on-policy distillation),
one from both; all have the same start, tasks, seed and steps. Each model then answers the same
held-out tasks, greedily and sampled. Minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codedance.envs import load_suite
from codedance.envs.types import Task
from codedance.pipelines.analysis.statistics import Rate, wilson
from codedance.pipelines.runs.machine import describe_machine
from codedance.policies import load_policy, rollout
from codedance.policies.interface import Sampling
from codedance.policies.loading import NANO_FOLDER
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loop import train_grpo
from codedance.sandbox import open_sandbox
from codedance.sandbox.types import Sandbox

from .measuring.weakened_nano import weakened_nano

CONFIG = GRPOConfig(
    tasks_per_step=6,
    num_generations=8,
    max_new_tokens=160,
    max_tokens=2000,
    learning_rate=1e-4,
    save_every=1000,
)
TAUGHT = {"teacher": str(NANO_FOLDER), "distillation_weight": 1.0}
TRAININGS: Mapping[str, Mapping[str, object]] = {
    "GRPO, rewards alone": {},
    "distillation alone": {**TAUGHT, "reward_weight": 0.0},
    "both": TAUGHT,
}
_MODES = {"greedy": 0.0, "sampled": 1.0}
_HEAD = ("", *_MODES, "log π − log π_T, first and last steps")
_ENDS = 5  # steps at either end of a training whose means are shown


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a model.

    Attributes:
        accuracy: Share of held-out tasks that were answered rightly, by mode.
        divergence: Divergence from the teacher of each step; empty without one.
    """

    accuracy: Mapping[str, Rate]
    divergence: Sequence[float] = ()

    @property
    def cells(self) -> list[str]:
        """Return the cells of a row of the table."""
        shown = [
            f"{rate.share:.1%} ({rate.low:.0%} to {rate.high:.0%})"
            for rate in self.accuracy.values()
        ]
        first, last = self.divergence[:_ENDS], self.divergence[-_ENDS:]
        ends = f"{_mean(first):.3f}, {_mean(last):.3f}" if self.divergence else "–"
        return [*shown, ends]


def examine(model: Path, tasks: Sequence[Task], sandbox: Sandbox) -> dict[str, Rate]:
    """Return a model's accuracy on held-out tasks, by mode."""
    policy = load_policy(model)
    found: dict[str, Rate] = {}
    for mode, temperature in _MODES.items():
        sampling = Sampling(temperature, max_new_tokens=160, max_tokens=2000)
        played = rollout(policy, tasks, sandbox=sandbox, sampling=sampling, evidence=False)
        known = [one.accuracy for one in played if one.accuracy is not None]
        found[mode] = wilson(sum(value > 0.5 for value in known), len(known))
    return found


def train(start: Path, folder: Path, config: GRPOConfig, sandbox: Sandbox) -> list[float]:
    """Train a model into ``folder/final``; return its divergence from the teacher by step."""
    suite = load_suite("nano", split="train")
    divergence: list[float] = []

    def on_step(_: int, metrics: Mapping[str, float]) -> None:
        if "distillation/kl" in metrics:
            divergence.append(metrics["distillation/kl"])

    tasks = [suite[index] for index in range(240)]
    train_grpo(start, tasks, config, sandbox=sandbox, folder=folder, on_step=on_step)
    return divergence


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the accuracy of the teacher, of the student, and of what the trainings made of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tasks", type=int, default=210, help="held-out nano tasks")
    parser.add_argument("--noise", type=float, default=0.3, help="relative to a layer's mean size")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    suite = load_suite("nano", split="test")
    tasks = [suite[index] for index in range(asked.tasks)]
    results: dict[str, Result] = {}
    with (
        tempfile.TemporaryDirectory(prefix="distillation-") as scratch,
        open_sandbox("local") as sandbox,
    ):
        start = weakened_nano(Path(scratch) / "start", noise=asked.noise)
        results["teacher"] = Result(examine(NANO_FOLDER, tasks, sandbox))
        results["student, before"] = Result(examine(start, tasks, sandbox))
        for number, (name, changes) in enumerate(TRAININGS.items()):
            config = replace(CONFIG, steps=asked.steps, seed=asked.seed, **changes)
            folder = Path(scratch) / str(number)
            divergence = train(start, folder, config, sandbox)
            accuracy = examine(folder / "final", tasks, sandbox)
            results[f"{asked.steps} steps: {name}"] = Result(accuracy, divergence)
    sys.stdout.write(f"{describe_machine()}\n{asked.tasks} held-out tasks, right (95 %)\n")
    for row in (
        _HEAD,
        ("---",) * len(_HEAD),
        *((name, *one.cells) for name, one in results.items()),
    ):
        sys.stdout.write(f"| {' | '.join(row)} |\n")


if __name__ == "__main__":
    main()
