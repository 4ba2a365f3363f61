"""Advantages of a trajectory among its siblings, as training assigned them to its tokens.

The store has reward terms, not advantages: they are recomputed from the stored terms and turns, by
the functions that training uses, with the settings of the run. What a teacher added to them is not
stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...envs.rewards.terms import group_reward, group_turn_advantages, is_scored
from ...envs.types import Trajectory
from ..config.settings import GRPOSettings
from ..config.strict_model import accepted_part
from ..store.lineage import StageRun

READ = ("reward", "std_floor", "scale_rewards", "reward_weight")
"""Settings of the training that decide its advantages."""


@dataclass(frozen=True, slots=True)
class Advantages:
    """Advantages of one trajectory.

    Attributes:
        group: A_group; None without siblings to compare it with.
        turns: A_turn of each of its turns.
    """

    group: float | None = None
    turns: tuple[float, ...] = ()


def sibling_advantages(stage: StageRun, group: Sequence[Trajectory]) -> list[Advantages]:
    """Return the advantages of each sibling; empty ones outside reinforcement learning."""
    settings = _settings(stage)
    if stage.stage != "grpo" or len(group) < 2:
        return [Advantages() for _ in group]
    import torch

    from ...policies import group_advantages

    rewards = [_reward(one) for one in group]
    advantages = group_advantages(
        torch.tensor([rewards], dtype=torch.float64),
        std_floor=settings.std_floor,
        scale_rewards=settings.scale_rewards,
    )[0].tolist()
    turns = group_turn_advantages(group, reward=settings.reward)
    weight = settings.reward_weight
    return [
        Advantages(
            None if math.isnan(reward) else weight * advantage,
            tuple(weight * one for one in of_turns),
        )
        for reward, advantage, of_turns in zip(rewards, advantages, turns, strict=True)
    ]


def turn_penalty(stage: StageRun) -> float:
    """Return the immediate reward of a failed turn (a negative number); 0.0 without scoring."""
    from ...envs.rewards.presets import reward_preset

    if stage.stage != "grpo":
        return 0.0
    preset = reward_preset(_settings(stage).reward)
    return 0.0 - preset.turn_weight * preset.penalty


def _settings(stage: StageRun) -> GRPOSettings:
    """Return the settings of the training; another package's stage may have recorded others."""
    recorded: Mapping[str, Any] = stage.parameters.get("grpo", {})
    read = {name: recorded[name] for name in READ if name in recorded}
    return GRPOSettings.model_validate(accepted_part(GRPOSettings, read))


def _reward(trajectory: Trajectory) -> float:
    if not is_scored(trajectory) or not trajectory.reward_terms:
        return math.nan
    return group_reward(dict(trajectory.reward_terms))
