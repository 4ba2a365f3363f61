"""Groups: the trajectories of one task, scored against each other, with their advantages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
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
from ....envs.types import Difficulty, Task, Trajectory
from ....sandbox.types import Sandbox
from ...interface import Policy
from ...rollouts.losses import Losses
from ...rollouts.runner import rollout
from ...seeds import derive_seed
from ..distributed.processes import World
from .advantages import group_advantages
from .config import GRPOConfig
from .curriculum import Curriculum, History
from .length_estimator import LengthEstimator

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
        self.drawn = drawn
        self._world = world or World()
        self._lengths = LengthEstimator()
        self._losses = Losses()
        self._tasks = tasks
        self._config = config
        self._sandbox = sandbox
        self._taken: list[int] = []
        self._curriculum = None
        if config.curriculum == "learnability":
            self._curriculum = Curriculum(tasks, seed=config.seed, history=history)

    def sample(self, policy: Policy, step: int) -> tuple[list[Group], list[Group]]:
        """Roll out one step's groups.

        Returns:
            Groups to learn from, and groups that were replaced.

        Raises:
            EpisodesLostError: Infrastructure lost every episode of the step.
        """
        config = self._config
        self._taken.clear()
        self._losses = Losses()
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
        played = [one for group in (*kept, *replaced) for one in group.trajectories]
        if not any(is_scored(one) for one in played):
            raise self._losses.error(f"step {step}: all {len(played)} episodes were lost")
        return kept, replaced

    def _groups(self, policy: Policy, count: int, seed: int) -> list[Group]:
        """Roll out the next tasks, divided over the processes; all get all groups, in order."""
        tasks = [self._next_task() for _ in range(count)]
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
            if self._curriculum is not None:
                _teach(self._curriculum, group)
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

    def state(self) -> dict[str, Any]:
        """Return the state for a resumed run: number of drawn tasks, and estimates of them."""
        curriculum = None if self._curriculum is None else self._curriculum.state()
        return {
            "drawn": self.drawn,
            "curriculum": curriculum,
            "lengths": self._lengths.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a result of `state`."""
        self.drawn = int(state["drawn"])
        self._lengths.restore(state.get("lengths", {}))
        if self._curriculum is not None:
            self._curriculum.restore(state["curriculum"])

    def _next_task(self) -> Task:
        """Return the next task, by ``easy_share`` and, where set, by learnability."""
        drawn, self.drawn = self.drawn, self.drawn + 1
        pool, position = self._pool(drawn)
        if self._curriculum is None:
            epoch, place = divmod(position, len(pool))
            order = np.random.default_rng([self._config.seed, epoch]).permutation(len(pool))
            return self._tasks[pool[int(order[place])]]
        chosen = self._curriculum.draw(drawn, pool, self._taken)
        self._taken.append(chosen)
        return self._tasks[chosen]

    def _pool(self, drawn: int) -> tuple[list[int], int]:
        """Return the task indices to draw from, and the number of earlier draws among them."""
        share = self._config.easy_share
        everything = list(range(len(self._tasks)))
        easy = [place for place in everything if self._tasks[place].difficulty is Difficulty.EASY]
        if share is None or not 0 < len(easy) < len(everything):
            return everything, drawn
        before = math.floor(drawn * share)
        if math.floor((drawn + 1) * share) > before:
            return easy, before
        return sorted(set(everything) - set(easy)), drawn - before


def _teach(curriculum: Curriculum, group: Group) -> None:
    """Update a curriculum with a group's accuracies; unchanged where nothing was scored."""
    accuracies = [one.accuracy or 0.0 for one in group.trajectories if is_scored(one)]
    if accuracies:
        curriculum.learn(group.trajectories[0].task_id, accuracies)
