"""Asynchronous GRPO of the nano model with slow tools, by ``max_staleness``.

    python -m benchmarks.staleness --engine vllm --figure docs/figures/measured/staleness.svg

All runs have the same start, tasks, seed and number of steps; every tool call takes 200 ms longer
than it does. With ``--engine vllm`` a server is started on this machine for each run, the first
time with an environment of its own. Some twenty minutes, on a machine that does nothing else.
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
from codedance.envs.types import Task
from codedance.pipelines.config.server_settings import RolloutSettings
from codedance.pipelines.runs.machine import describe_machine
from codedance.pipelines.serving.engine.policy import training_engine
from codedance.policies import load_policy, rollout
from codedance.policies.interface import Sampling
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loop import train_grpo
from codedance.sandbox import open_sandbox
from codedance.sandbox.types import Sandbox

from .measuring.slow_sandbox import SlowSandbox
from .measuring.weakened_nano import weakened_nano

TOOL_SECONDS = 0.2
HEAD = (
    "`max_staleness`",
    "steps a minute",
    "waited for replies",
    "older tokens",
    "mean difference, new and older tokens",
    "effective sample share",
    "reward, last ten steps",
    "held-out accuracy before and after",
)


@dataclass(slots=True)
class Run:
    """A training.

    Attributes:
        staleness: Its ``max_staleness``.
        metrics: Metrics of each step.
        ends: Times at which steps ended.
        before: Held-out accuracy before the training.
        after: Held-out accuracy after it.
    """

    staleness: int
    metrics: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    ends: list[float] = field(default_factory=list[float])
    before: float = 0.0
    after: float = 0.0

    def done(self, _: int, metrics: Mapping[str, float]) -> None:
        """Note the results of a step."""
        self.ends.append(time.monotonic())
        self.metrics.append(dict(metrics))

    def mean(self, name: str, *, last: int = 0) -> float:
        """Return the mean of a metric over the steps that have it; over the last ones alone."""
        found = [one[name] for one in self.metrics[-last:] if name in one]
        return statistics.mean(found) if found else 0.0

    @property
    def steps_per_minute(self) -> float:
        """Steps per minute, without the first, which warms up."""
        return 60.0 * (len(self.ends) - 1) / (self.ends[-1] - self.ends[0])

    def row(self) -> tuple[str, ...]:
        """Return the row of the table."""
        older = 1.0 - self.mean("sampled_share/behind_0") if self.staleness else 0.0
        difference = "sampling_logp_difference"
        new = self.mean(f"{difference}/{'behind_0/' if self.staleness else ''}mean")
        old = [self.mean(f"{difference}/behind_{n}/mean") for n in range(1, self.staleness + 1)]
        wait = f"{self.mean('engine/wait_seconds'):.2f} s" if self.staleness else "–"
        return (
            str(self.staleness),
            f"{self.steps_per_minute:.1f}",
            wait,
            f"{older:.0%}",
            ", ".join(f"{one:.1e}" for one in (new, *old)),
            f"{self.mean('importance_sampling_ratio/effective_share'):.3f}",
            f"{self.mean('reward', last=10):.2f}",
            f"{self.before:.1%}, {self.after:.1%}",
        )


def train(
    start: Path, folder: Path, settings: RolloutSettings, staleness: int, *, steps: int, seed: int
) -> Run:
    """Train at a staleness; return what it reported."""
    suite = load_suite("nano", split="train")
    tasks = [suite[index] for index in range(4 * steps)]
    config = GRPOConfig(
        steps=steps,
        tasks_per_step=4,
        num_generations=6,
        max_new_tokens=160,
        max_tokens=2000,
        learning_rate=1e-4,
        max_redraws=0,
        max_staleness=staleness,
        save_every=steps,
        seed=seed,
    )
    folder.mkdir()
    run = Run(staleness)
    log = folder / "vllm.log"
    engine = training_engine(str(start), settings, config=config, log=log, say=_say)
    with open_sandbox("local") as sandbox, engine as served:
        train_grpo(
            start,
            tasks,
            config,
            sandbox=SlowSandbox(sandbox, TOOL_SECONDS),
            folder=folder,
            on_step=run.done,
            served=served,
        )
    return run


def accuracy(source: Path, tasks: Sequence[Task], sandbox: Sandbox) -> float:
    """Return the accuracy of a model on tasks, sampled at temperature 1."""
    found = rollout(load_policy(source), tasks, sandbox=sandbox, sampling=Sampling(), seed=1)
    return statistics.mean(one.accuracy for one in found if one.accuracy is not None)


def draw(runs: Sequence[Run], file: Path) -> None:
    """Draw the reward of each run by steps and by minutes."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    style = {"svg.hashsalt": "codedance", "svg.fonttype": "none", "legend.frameon": False}
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(8.4, 3.2), layout="constrained", sharey=True
        )
        for run, colour in zip(runs, ("#1f6feb", "#d9822b", "#2f9e5b"), strict=False):
            rewards = [one["reward"] for one in run.metrics]
            smooth = [statistics.mean(rewards[max(0, n - 4) : n + 1]) for n in range(len(rewards))]
            minutes = [(end - run.ends[0]) / 60.0 for end in run.ends]
            name = f"max_staleness {run.staleness}"
            left.plot(range(1, len(smooth) + 1), smooth, color=colour, label=name)
            right.plot(minutes, smooth, color=colour, label=name)
        left.set(xlabel="step", ylabel="mean reward (mean of 5 steps)")
        right.set(xlabel="minutes since the first step")
        left.legend()
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train once per staleness; print the table, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("own", "vllm"), default="own")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=400, help="number of held-out tasks")
    parser.add_argument("--figure", type=Path, default=None, help="SVG file to draw into")
    asked = parser.parse_args(arguments)
    suite = load_suite("nano", split="test")
    held_out = [suite[index] for index in range(asked.held_out)]
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="staleness-") as scratch:
        start = weakened_nano(Path(scratch) / "start")
        with open_sandbox("local") as sandbox:
            before = accuracy(start, held_out, sandbox)
            for staleness in (0, 1, 2):
                folder = Path(scratch) / str(staleness)
                settings = RolloutSettings(engine=asked.engine)
                run = train(start, folder, settings, staleness, steps=asked.steps, seed=asked.seed)
                run.before, run.after = before, accuracy(folder / "final", held_out, sandbox)
                runs.append(run)
    sys.stdout.write(f"{describe_machine()}\n")
    for row in (HEAD, ("---",) * len(HEAD), *(run.row() for run in runs)):
        sys.stdout.write(f"| {' | '.join(row)} |\n")
    if asked.figure is not None:
        draw(runs, asked.figure)


if __name__ == "__main__":
    main()
