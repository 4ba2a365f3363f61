"""Groups: the trajectories of one task, scored against each other and given advantages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..envs.evidence import EvidenceCache, record_evidence
from ..envs.rewards import (
    group_accuracy,
    group_reward,
    group_turn_advantages,
    is_scored,
    needs_evidence,
    score_group,
)
from ..envs.types import Band, Task, Trajectory
from ..sandbox import Sandbox
from .advantages import group_advantages
from .grpo_config import GRPOConfig
from .interface import Policy
from .rollouts import rollout
from .seeds import derive_seed

OnTrajectories = Callable[[int, Sequence[Trajectory]], None]
"""Told the number of a step, from 1, and all that was sampled in it, reward terms filled in."""

_WORKERS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The trajectories of one task, reward terms filled in, and what they earned.

    Attributes:
        trajectories: Siblings, in order of sampling.
        advantages: A_group of each, 0.0 for one that was not scored.
        turn_advantages: A_turn of each turn of each.
    """

    trajectories: tuple[Trajectory, ...]
    advantages: tuple[float, ...]
    turn_advantages: tuple[tuple[float, ...], ...]

    @property
    def is_lost(self) -> bool:
        """Whether fewer than two trajectories were scored: nothing to compare."""
        return sum(is_scored(one) for one in self.trajectories) < 2

    @property
    def is_flat(self) -> bool:
        """Whether it teaches nothing: every advantage of every token is 0."""
        turns = (value for values in self.turn_advantages for value in values)
        return not any(self.advantages) and not any(turns)


def score(
    trajectories: Sequence[Trajectory],
    config: GRPOConfig,
    *,
    sandbox: Sandbox,
    cache: EvidenceCache | None = None,
) -> Group:
    """Give a group its reward terms and advantages; evidence is looked for where it matters."""
    seen = _with_evidence(trajectories, config, sandbox, cache)
    terms = score_group(seen, reward=config.scoring)
    rewards = torch.tensor([[group_reward(one) for one in terms]], dtype=torch.float64)
    advantages = group_advantages(
        rewards, std_floor=config.std_floor, scale_rewards=config.scale_rewards
    )
    scored = [replace(one, reward_terms=own) for one, own in zip(seen, terms, strict=True)]
    turns = group_turn_advantages(scored, reward=config.scoring)
    return Group(
        tuple(scored), tuple(advantages[0].tolist()), tuple(tuple(values) for values in turns)
    )


def _with_evidence(
    trajectories: Sequence[Trajectory],
    config: GRPOConfig,
    sandbox: Sandbox,
    cache: EvidenceCache | None,
) -> list[Trajectory]:
    """Replay what the reward depends on; one lost in that changes the group's accuracy."""
    current = list(trajectories)
    while True:
        accuracy = group_accuracy(current)
        if accuracy is None:
            return current
        asked = [
            index
            for index, one in enumerate(current)
            if needs_evidence(one, group_accuracy=accuracy, reward=config.scoring)
        ]
        if not asked:
            return current
        for index in asked:
            one = current[index]
            current[index] = record_evidence(one, one.images, sandbox, cache)


class GroupSampler:
    """Draws tasks in a fixed order and gives scored groups, flat ones replaced within a bound.

    Args:
        tasks: All of them; an epoch is a permutation.
        config: Of the run.
        sandbox: Where code runs.
        drawn: How many tasks were drawn before, for a run that goes on.
    """

    def __init__(
        self, tasks: Sequence[Task], config: GRPOConfig, *, sandbox: Sandbox, drawn: int = 0
    ) -> None:
        self.drawn = drawn
        self._tasks = tasks
        self._config = config
        self._sandbox = sandbox

    def sample(self, policy: Policy, step: int) -> tuple[list[Group], list[Group]]:
        """Roll out one step's groups.

        Returns:
            The groups to learn from, and those that were replaced.
        """
        config = self._config
        kept: list[Group] = []
        replaced: list[Group] = []
        for attempt in range(config.max_redraws + 1):
            missing = config.tasks_per_step - len(kept)
            is_last = attempt == config.max_redraws
            for group in self._groups(policy, missing, derive_seed(config.seed, step, attempt)):
                is_useless = group.is_lost or group.is_flat
                (replaced if is_useless and not is_last else kept).append(group)
            if len(kept) == config.tasks_per_step:
                break
        return kept, replaced

    def _groups(self, policy: Policy, count: int, seed: int) -> list[Group]:
        config = self._config
        tasks = [self._next_task() for _ in range(count)]
        size = config.num_generations
        trajectories = rollout(
            policy,
            tasks,
            sandbox=self._sandbox,
            samples=size,
            seed=seed,
            sampling=config.sampling,
            interface=config.interface,
            max_turns=config.max_turns,
            batch_size=config.rollout_batch_size,
            evidence=False,
            deterministic=config.deterministic,
        )
        cache: EvidenceCache = {}
        parts = [trajectories[start : start + size] for start in range(0, len(trajectories), size)]

        def scored(part: Sequence[Trajectory]) -> Group:
            return score(part, config, sandbox=self._sandbox, cache=cache)

        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="evidence") as pool:
            return list(pool.map(scored, parts))

    def _next_task(self) -> Task:
        """Give the next task of its epoch's permutation, an easy one as often as is asked."""
        drawn, self.drawn = self.drawn, self.drawn + 1
        share = self._config.easy_share
        easy = [task for task in self._tasks if task.difficulty is Band.EASY]
        if share is None or not 0 < len(easy) < len(self._tasks):
            return self._permuted(self._tasks, drawn)
        before = math.floor(drawn * share)
        if math.floor((drawn + 1) * share) > before:
            return self._permuted(easy, before)
        others = [task for task in self._tasks if task.difficulty is not Band.EASY]
        return self._permuted(others, drawn - before)

    def _permuted(self, tasks: Sequence[Task], drawn: int) -> Task:
        epoch, position = divmod(drawn, len(tasks))
        order = np.random.default_rng([self._config.seed, epoch]).permutation(len(tasks))
        return tasks[int(order[position])]
