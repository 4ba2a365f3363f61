"""A training over fakes of vLLM, or in this process, and what it reported."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codedance.envs.types import Task, Trajectory
from codedance.policies.inference.vllm.settings import VllmSettings
from codedance.policies.training.grpo.asynchronous.weight_age import steps_behind
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loop import train_grpo
from codedance.policies.training.grpo.served_rollouts import ServedRollouts
from codedance.sandbox.types import Sandbox

from ..inference.vllm.fake_vllm import FakeVllm


@dataclass
class Run:
    """One training.

    Attributes:
        start: Initial model.
        folder: Its folder.
        sandbox: Sandbox in which code runs.
        tasks: Its tasks.
        config: Its settings.
        served: Servers; None for our own engine.
        at: Called with each step, from 1, between its replies and its update.
        metrics: Metrics of each step.
        steps: Trajectories of each step, from 1.
    """

    start: Path
    folder: Path
    sandbox: Sandbox
    tasks: Sequence[Task]
    config: GRPOConfig
    served: ServedRollouts | None = None
    at: Callable[[int], None] = lambda _: None
    metrics: list[dict[str, float]] = field(default_factory=list)
    steps: dict[int, list[Trajectory]] = field(default_factory=dict)

    def over(self, settings: VllmSettings, *fakes: FakeVllm) -> "Run":
        """Train over servers, if there are any."""
        if fakes:
            urls = tuple(one.url for one in fakes)
            self.served = ServedRollouts(urls, self.handed, settings)
        return self

    @property
    def handed(self) -> Path:
        """Folder in which weights are handed over."""
        return self.folder / "handed"

    def go(self, config: GRPOConfig | None = None, **options: Any) -> Path:
        return train_grpo(
            self.start,
            self.tasks,
            config or self.config,
            sandbox=self.sandbox,
            folder=self.folder,
            on_step=lambda _, metrics: self.metrics.append(dict(metrics)),
            on_trajectories=self._played,
            served=self.served,
            **options,
        )

    def _played(self, step: int, found: Sequence[Trajectory]) -> None:
        self.steps[step] = list(found)
        self.at(step)

    @property
    def trajectories(self) -> list[Trajectory]:
        return [one for some in self.steps.values() for one in some]

    def ids(self) -> list[tuple[int, ...]]:
        return [() if one.tokens is None else one.tokens.ids for one in self.trajectories]

    def versions(self) -> set[str]:
        spans = [one.tokens.weight_versions for one in self.trajectories if one.tokens is not None]
        return {span.version for some in spans for span in some}

    def drawn(self) -> dict[int, Counter[str]]:
        """Return how often each step has each task."""
        return {step: Counter(one.task_id for one in some) for step, some in self.steps.items()}

    def ages(self, step: int) -> list[list[int]]:
        """Return how many steps behind each reply of each trajectory of a step began."""
        return [
            [steps_behind(step - 1, span.version) for span in one.tokens.weight_versions]
            for one in self.steps[step]
            if one.tokens is not None
        ]
