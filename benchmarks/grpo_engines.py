"""GRPO of the nano model over vLLM and over our own engine: rewards, and where the time goes.

    python -m benchmarks.grpo_engines --figure docs/figures/measured/grpo-engines.svg

Both runs have the same start, tasks, seed and steps. The start is the shipped model with noise on
its layers, so that there is something to learn. A vLLM server is started on this machine. Several
minutes, on a machine that does nothing else; the first time it makes vLLM's environment.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codedance.envs import load_suite
from codedance.envs.types import Trajectory
from codedance.pipelines.config.server_settings import RolloutSettings
from codedance.pipelines.runs.machine import describe_machine
from codedance.pipelines.serving.engine.policy import training_engine
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loop import train_grpo
from codedance.sandbox import open_sandbox

from .measuring.weakened_nano import weakened_nano

ENGINES = ("our engine", "vLLM")
_TRANSFER = ("engine/write_seconds", "engine/load_seconds", "engine/handshake_seconds")
_HEAD = ("", "step", "replies and tools", "tools, summed", "weights to the server", "update")


@dataclass(slots=True)
class Steps:
    """Rewards and seconds of a run, step by step.

    Attributes:
        rewards: Mean reward.
        differences: Mean difference of the log-probabilities, engine and trainer.
        seconds: Seconds by what they were spent on, one mapping per step.
    """

    rewards: list[float] = field(default_factory=list[float])
    differences: list[float] = field(default_factory=list[float])
    seconds: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    _begun: float = field(default_factory=time.monotonic)
    _played: float = 0.0
    _tools: float = 0.0

    def played(self, _: int, trajectories: Sequence[Trajectory]) -> None:
        """Note the time when all replies of a step are there."""
        self._played = time.monotonic()
        self._tools = sum(
            turn.execution.wall_seconds
            for one in trajectories
            for turn in one.turns
            if turn.execution is not None
        )

    def done(self, _: int, metrics: Mapping[str, float]) -> None:
        """Note the results of a step."""
        now = time.monotonic()
        transfer = sum(metrics.get(name, 0.0) for name in _TRANSFER)
        self.rewards.append(metrics["reward"])
        self.differences.append(metrics.get("sampling_logp_difference/mean", 0.0))
        self.seconds.append(
            {
                "step": now - self._begun,
                "replies and tools": self._played - self._begun - transfer,
                "tools, summed": self._tools,
                "weights to the server": transfer,
                "update": now - self._played,
            }
        )
        self._begun = now


def train(name: str, start: Path, folder: Path, *, steps: int, seed: int) -> Steps:
    """Train over an engine; return rewards and times."""
    suite = load_suite("nano", split="train")
    tasks = [suite[index] for index in range(120)]
    config = GRPOConfig(
        steps=steps,
        tasks_per_step=6,
        num_generations=8,
        max_new_tokens=160,
        max_tokens=2000,
        learning_rate=1e-4,
        save_every=steps,
        seed=seed,
    )
    folder.mkdir()
    settings = RolloutSettings(engine="own" if name == ENGINES[0] else "vllm")
    log = folder / "vllm.log"
    engine = training_engine(str(start), settings, config=config, log=log, say=_say)
    with open_sandbox("local") as sandbox, engine as served:
        found = Steps()
        train_grpo(
            start,
            tasks,
            config,
            sandbox=sandbox,
            folder=folder,
            on_step=found.done,
            on_trajectories=found.played,
            served=served,
        )
    return found


def draw(runs: Mapping[str, Steps], file: Path) -> None:
    """Draw the rewards of the runs, and the time of a step by what it is spent on."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    style = {"svg.hashsalt": "codedance", "svg.fonttype": "none", "legend.frameon": False}
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
        for (name, run), colour in zip(runs.items(), ("#1f6feb", "#d9822b"), strict=True):
            left.plot(range(1, len(run.rewards) + 1), run.rewards, color=colour, label=name)
        left.set(xlabel="step", ylabel="mean reward")
        left.legend()
        parts = ("replies and tools", "weights to the server", "update")
        base = [0.0] * len(runs)
        for part, colour in zip(parts, ("#1f6feb", "#8a94a3", "#2f9e5b"), strict=True):
            heights = [_median(run, part) for run in runs.values()]
            right.bar(list(runs), heights, bottom=base, color=colour, label=part, width=0.5)
            base = [below + height for below, height in zip(base, heights, strict=True)]
        right.set(ylabel="seconds per step (medians)")
        right.legend()
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def table(runs: Mapping[str, Steps]) -> list[tuple[str, ...]]:
    """Return the median seconds of a step, by what they are spent on."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for name, run in runs.items():
        rows.append((name, *(f"{_median(run, part):.2f} s" for part in _HEAD[1:])))
    return rows


def _median(run: Steps, part: str) -> float:
    """Return the median over the steps after the first, which warms up."""
    return statistics.median(one[part] for one in run.seconds[1:])


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train twice; print the rewards and the table, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, default=None, help="SVG file to draw into")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="grpo-engines-") as scratch:
        start = weakened_nano(Path(scratch) / "start")
        runs = {
            name: train(name, start, Path(scratch) / str(n), steps=asked.steps, seed=asked.seed)
            for n, name in enumerate(ENGINES)
        }
    sys.stdout.write(f"{describe_machine()}\n")
    for name, run in runs.items():
        rewards = " ".join(f"{one:.3f}" for one in run.rewards)
        sys.stdout.write(f"{name}: rewards {rewards}\n")
        sys.stdout.write(f"{name}: mean difference {max(run.differences):.1e} at most\n")
    first, *others = table(runs)
    for row in (first, ("---",) * len(first), *others):
        sys.stdout.write(f"| {' | '.join(row)} |\n")
    if asked.figure is not None:
        draw(runs, asked.figure)


if __name__ == "__main__":
    main()
