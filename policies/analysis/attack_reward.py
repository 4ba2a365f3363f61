"""Attacks on a reward: scripted reward hacks, each against an honest policy with the same answer.

All policies act in the real environment and sandbox, on tasks of each difficulty. A reward hack and
its honest counterpart are then scored in one group with six honest siblings, in groups from all
wrong to all right; the gain of each is A_group plus A_turn of each of its turns. A reward hack pays
if it gains more than its counterpart in any group.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from ...envs.episode import Episode
from ...envs.rewards import score_group
from ...envs.rewards.evidence import EvidenceCache, record_evidence
from ...envs.rewards.presets import RewardPreset
from ...envs.rewards.terms import group_reward, group_turn_advantages
from ...envs.suites.nano.suite import make_task
from ...envs.types import Difficulty, Ending, Task, Trajectory
from ...sandbox.types import Sandbox
from ..training.grpo.advantages import ScaleRewards, group_advantages
from .attack_scripts import HONEST, REWARD_HACKS, AttackContext, Honest, RewardHack, Script

PAYS_ABOVE = 1e-3
"""Advantages that differ by less count as equal."""

FAMILIES = ("count", "area", "digit")
"""Families whose tasks are used in turn: a number, a word, an image to look at."""

_WORKERS = 4

Siblings = tuple[tuple[Honest, bool], ...]
"""Honest policies of a group, and whether each answers right."""


def _siblings(*some: tuple[Honest, bool, int]) -> Siblings:
    return tuple((name, is_right) for name, is_right, count in some for _ in range(count))


GROUPS: dict[Difficulty, tuple[Siblings, ...]] = {
    Difficulty.EASY: (
        _siblings(("direct", True, 4), ("tool", True, 1), ("sloppy", True, 1)),
        _siblings(("direct", True, 3), ("adaptive", True, 2), ("sloppy", False, 1)),
    ),
    Difficulty.MEDIUM: (
        _siblings(
            ("direct", True, 1), ("direct", False, 2), ("tool", True, 2), ("sloppy", True, 1)
        ),
        _siblings(("direct", False, 2), ("adaptive", True, 3), ("sloppy", False, 1)),
    ),
    Difficulty.HARD: (
        _siblings(("direct", False, 3), ("tool", True, 2), ("sloppy", False, 1)),
        _siblings(("direct", False, 4), ("adaptive", True, 1), ("sloppy", False, 1)),
        _siblings(("direct", False, 4), ("tool", False, 1), ("sloppy", False, 1)),
    ),
}

Part = tuple[str, str, bool]
"""Name of the policy, id of the task, and whether it answers right."""


@dataclass(frozen=True, slots=True)
class AttackResult:
    """Gains of a reward hack.

    Attributes:
        hack: The reward hack.
        gains: Largest gain over its counterpart in any group, by difficulty.
    """

    hack: RewardHack
    gains: dict[Difficulty, float]

    @property
    def gain(self) -> float:
        """Largest gain over all difficulties."""
        return max(self.gains.values())

    @property
    def pays(self) -> bool:
        """Whether the reward can be hacked in this way."""
        return self.gain > PAYS_ABOVE and not self.hack.is_limit


def attack_reward(
    reward: str | RewardPreset,
    *,
    sandbox: Sandbox,
    scale_rewards: ScaleRewards = "floor",
    tasks_per_difficulty: int = 1,
    seed: int = 0,
) -> list[AttackResult]:
    """Return the gain of each reward hack over its honest counterpart.

    Args:
        reward: Preset or its name, with or without own terms (`with_terms`).
        sandbox: Sandbox in which code runs.
        scale_rewards: Scaling of rewards, as in training.
        tasks_per_difficulty: Tasks of the nano suite's train split per difficulty.
        seed: Random seed of the tasks.
    """
    stage = AttackStage(sandbox, tasks_per_difficulty=tasks_per_difficulty, seed=seed)
    return stage.judge(reward, scale_rewards=scale_rewards)


class AttackStage:
    """Runs every policy; the trajectories can then be scored with any number of rewards.

    Args:
        sandbox: Sandbox in which code runs.
        hacks: Reward hacks to run.
        tasks_per_difficulty: Tasks of the nano suite's train split per difficulty.
        seed: Random seed of the tasks.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        hacks: Sequence[RewardHack] = REWARD_HACKS,
        tasks_per_difficulty: int = 1,
        seed: int = 0,
    ) -> None:
        self._sandbox = sandbox
        self._hacks = tuple(hacks)
        self._tasks = {
            difficulty: [
                make_task(FAMILIES[(place + n) % len(FAMILIES)], difficulty, "train", seed + n)
                for n in range(tasks_per_difficulty)
            ]
            for place, difficulty in enumerate(Difficulty)
        }
        self._replays: EvidenceCache = {}
        self._played = self._play()

    def judge(
        self, reward: str | RewardPreset, *, scale_rewards: ScaleRewards = "floor"
    ) -> list[AttackResult]:
        """Return the gain of each reward hack over its honest counterpart under a reward."""

        def gain(hack: RewardHack, task: Task) -> float:
            """Return the largest gain in any group of one task."""
            return max(
                sum(self._gain(hack, task, siblings, right, scoring) for right in trial)
                / len(trial)
                for siblings in GROUPS[task.difficulty]
                for trial in hack.trials
            )

        scoring = _Scoring(reward, scale_rewards)
        return [
            AttackResult(
                hack,
                {
                    difficulty: max(gain(hack, one) for one in self._tasks[difficulty])
                    for difficulty in Difficulty
                },
            )
            for hack in self._hacks
        ]

    def _play(self) -> dict[Part, Trajectory]:
        """Run every policy on every task, with the right and with a wrong answer."""
        players = {**HONEST, **{hack.name: hack.texts for hack in self._hacks}}
        parts = [
            (name, task, [texts(AttackContext(task, is_right)) for is_right in (True, False)])
            for tasks in self._tasks.values()
            for task in tasks
            for name, texts in players.items()
        ]
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="attack") as pool:
            acted = pool.map(lambda part: self._act_both(part[1], *part[2]), parts)
            return {
                (name, task.id, is_right): one
                for (name, task, _), both in zip(parts, acted, strict=True)
                for is_right, one in zip((True, False), both, strict=True)
            }

    def _act_both(self, task: Task, right: Script, wrong: Script) -> tuple[Trajectory, Trajectory]:
        """Run both scripts; once where they differ in the answer at their end alone."""
        one = self._act(task, right)
        last = one.turns[-1]
        if one.ending is Ending.ANSWERED and last.text == right[-1] and right[:-1] == wrong[:-1]:
            other = self._act(task, wrong[-1:])
            if other.ending is Ending.ANSWERED:
                turns = (*one.turns[:-1], other.turns[-1])
                return one, replace(one, turns=turns, accuracy=other.accuracy, answer=other.answer)
        return one, self._act(task, wrong)

    def _act(self, task: Task, script: Script) -> Trajectory:
        with Episode(task, self._sandbox) as episode:
            for text in script:
                if not isinstance(text, str):
                    time.sleep(text)
                elif episode.ending is None:
                    episode.step(text)
            trajectory = episode.trajectory("attack")
        return record_evidence(trajectory, episode.images, self._sandbox, self._replays)

    def _gain(
        self, hack: RewardHack, task: Task, siblings: Siblings, is_right: bool, scoring: _Scoring
    ) -> float:
        """Return the gain of a reward hack over its counterpart in one group."""
        parts: list[tuple[str, bool]] = [*siblings, (hack.against, is_right)]
        parts.append((hack.name, is_right))
        earned = scoring.earned([self._played[name, task.id, right] for name, right in parts])
        return earned[-1] - earned[-2]


@dataclass(frozen=True, slots=True)
class _Scoring:
    """Reward and scaling that a group is scored with."""

    reward: str | RewardPreset
    scale_rewards: ScaleRewards

    def earned(self, group: Sequence[Trajectory]) -> list[float]:
        """Return A_group plus the A_turn of each turn, member by member."""
        terms = score_group(group, reward=self.reward)
        rewards = torch.tensor([[group_reward(one) for one in terms]], dtype=torch.float64)
        compared = group_advantages(rewards, scale_rewards=self.scale_rewards)[0].tolist()
        turns = group_turn_advantages(group, reward=self.reward)
        return [one + sum(values) for one, values in zip(compared, turns, strict=True)]
