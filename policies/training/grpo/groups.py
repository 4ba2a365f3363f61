"""Groups: the trajectories of one task, scored against each other, with their advantages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from ....envs.rewards import score_group
from ....envs.rewards.evidence import EvidenceCache, record_evidence
from ....envs.rewards.terms import (
    group_accuracy,
    group_reward,
    group_turn_advantages,
    is_scored,
    needs_evidence,
)
from ....envs.types import Task, Trajectory
from ....sandbox.types import Sandbox
from ...interface import Policy
from ...rollouts.losses import Losses
from ...rollouts.runner import rollout
from ...seeds import derive_seed
from ..distributed.processes import World
from .advantages import group_advantages
from .config import GRPOConfig
from .task_order.curriculum import History
from .task_order.length_estimator import LengthEstimator
from .task_order.task_draws import TaskDraws

OnTrajectories = Callable[[int, Sequence[Trajectory]], None]
"""Called with the number of a step, from 1, and all its trajectories, with reward terms."""

_WORKERS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """The trajectories of one task, with reward terms and advantages.

    Attributes:
        trajectories: Siblings, in order of sampling.
        advantages: A_group of each trajectory, 0.0 for one that was not scored.
        turn_advantages: A_turn of each turn of each trajectory.
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
        """Whether it has no gradient: every advantage of every token is 0."""
        turns = (value for values in self.turn_advantages for value in values)
        return not any(self.advantages) and not any(turns)


def is_useless(group: Group, config: GRPOConfig) -> bool:
    """Return whether there is nothing to learn from a group: others are drawn in its place.

    A teacher has something to say about each trajectory, even if all of them are alike.
    """
    return group.is_lost or (group.is_flat and config.teacher is None)


def score(
    trajectories: Sequence[Trajectory],
    config: GRPOConfig,
    *,
    sandbox: Sandbox,
    cache: EvidenceCache | None = None,
) -> Group:
    """Compute a group's reward terms and advantages; evidence is recorded where it matters."""
    seen = _with_evidence(trajectories, config, sandbox, cache)
    terms = score_group(seen, reward=config.scoring)
    if config.overlong_buffer:
        terms = [
            own | {"overlong": None if None in own.values() else overlong_penalty(one, config)}
            for one, own in zip(seen, terms, strict=True)
        ]
    rewards = torch.tensor([[group_reward(one) for one in terms]], dtype=torch.float64)
    advantages = group_advantages(
        rewards, std_floor=config.std_floor, scale_rewards=config.scale_rewards
    )
    scored = [replace(one, reward_terms=own) for one, own in zip(seen, terms, strict=True)]
    turns = group_turn_advantages(scored, reward=config.scoring)
    return Group(
        tuple(scored), tuple(advantages[0].tolist()), tuple(tuple(values) for values in turns)
    )


def overlong_penalty(trajectory: Trajectory, config: GRPOConfig) -> float:
    """Return the soft overlong punishment of a trajectory's own tokens (DAPO, eq. 13), -1 to 0.

    A trajectory without tokens, of a policy that records none, has no penalty.
    """
    tokens = trajectory.tokens
    if tokens is None:
        return 0.0
    over = sum(tokens.mask) - (config.completion_budget - config.overlong_buffer)
    return -min(max(over / config.overlong_buffer, 0.0), 1.0)


def _with_evidence(
    trajectories: Sequence[Trajectory],
    config: GRPOConfig,
    sandbox: Sandbox,
    cache: EvidenceCache | None,
) -> list[Trajectory]:
    """Replay the trajectories whose reward depends on it; a lost one changes group accuracy."""
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
    """Draws tasks in a fixed order and samples scored groups; flat ones are redrawn, up to a bound.

    Args:
        tasks: All tasks; an epoch is a permutation.
        config: Settings of the run.
        sandbox: Sandbox in which code runs.
        drawn: Number of tasks drawn before, for a resumed run.
        history: Results of earlier runs on the tasks, for a curriculum by learnability.
        world: Processes that divide the tasks of a step; each has its own sandbox.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        config: GRPOConfig,
        *,
        sandbox: Sandbox,
        drawn: int = 0,
        history: History | None = None,
        world: World | None = None,
    ) -> None:
        self._world = world or World()
        self._lengths = LengthEstimator()
        self._losses = Losses()
        self._draws = TaskDraws(tasks, config, drawn=drawn, history=history)
        self._config = config
        self._sandbox = sandbox

    def sample(self, policy: Policy, step: int) -> tuple[list[Group], list[Group]]:
        """Roll out one step's groups.

        Returns:
            Groups to learn from, and groups that were replaced.

        Raises:
            EpisodesLostError: Infrastructure lost every episode of the step.
        """
        config = self._config
        self._draws.begin_step()
        self._losses = Losses()
        kept: list[Group] = []
        replaced: list[Group] = []
        for attempt in range(config.max_redraws + 1):
            missing = config.tasks_per_step - len(kept)
            is_last = attempt == config.max_redraws
            for group in self._groups(policy, missing, derive_seed(config.seed, step, attempt)):
                is_replaced = is_useless(group, config) and not is_last
                (replaced if is_replaced else kept).append(group)
            if len(kept) == config.tasks_per_step:
                break
        played = [one for group in (*kept, *replaced) for one in group.trajectories]
        if not any(is_scored(one) for one in played):
            raise self._losses.error(f"step {step}: all {len(played)} episodes were lost")
        return kept, replaced

    def _groups(self, policy: Policy, count: int, seed: int) -> list[Group]:
        """Roll out the next tasks, divided over the processes; all get all groups, in order."""
        tasks = [self._draws.next() for _ in range(count)]
        share = self._lengths.shares(tasks, parts=self._world.size)[self._world.rank]
        parts = self._world.gather(lambda: self._play(policy, [tasks[i] for i in share], seed))
        shares = self._lengths.shares(tasks, parts=self._world.size)
        placed = [
            pair
            for indices, groups in zip(shares, parts, strict=True)
            for pair in zip(indices, groups, strict=True)
        ]
        groups = [group for _, group in sorted(placed, key=lambda pair: pair[0])]
        for task, group in zip(tasks, groups, strict=True):
            self._lengths.note(task, group.trajectories)
            self._draws.learn(group.trajectories)
        return groups

    def _play(self, policy: Policy, tasks: Sequence[Task], seed: int) -> list[Group]:
        config = self._config
        size = config.num_generations
        if not tasks:
            return []
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
            on_lost=self._losses,
        )
        cache: EvidenceCache = {}
        parts = [trajectories[start : start + size] for start in range(0, len(trajectories), size)]

        def scored(part: Sequence[Trajectory]) -> Group:
            return score(part, config, sandbox=self._sandbox, cache=cache)

        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="evidence") as pool:
            return list(pool.map(scored, parts))

    def figures(self) -> Mapping[str, float]:
        """Return no figures: a step waits for its own replies alone."""
        return {}

    def close(self) -> None:
        """Do nothing: no episode outlasts its step."""

    def state(self) -> dict[str, Any]:
        """Return the state for a resumed run: number of drawn tasks, and estimates of them."""
        return self._draws.state() | {"lengths": self._lengths.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a result of `state`."""
        self._draws.restore(state)
        self._lengths.restore(state.get("lengths", {}))
