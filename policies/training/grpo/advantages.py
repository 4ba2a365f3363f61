"""Advantages: rewards of a trajectory relative to its siblings, assigned to its own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

ScaleRewards = Literal["floor", "group", "none"]

SMALLEST_SPREAD = 1e-6
"""Rewards of a group that differ by less count as equal."""


def group_advantages(
    rewards: Tensor, *, std_floor: float = 0.5, scale_rewards: ScaleRewards = "floor"
) -> Tensor:
    """Score each trajectory against its siblings on the same task (GRPO, arXiv 2402.03300, eq. 3).

    Departure from the paper: the standard deviation that rewards are divided by is at least
    ``std_floor``. Plain division rewards a lucky guess that saves a call as much as a right answer
    over a wrong one.

    Args:
        rewards: Total reward per trajectory, ``(groups, samples)``; NaN marks one that our
            infrastructure lost.
        std_floor: Smallest divisor of ``floor``.
        scale_rewards: ``floor`` divides by max(std, floor), ``group`` by std (the paper),
            ``none`` not at all (Dr. GRPO, arXiv 2503.20783). Std is with n - 1.

    Returns:
        Advantages, ``(groups, samples)``, of the same float type. They are exactly 0 in a group
        whose rewards are all equal or of which fewer than two are scored, and for a lost
        trajectory.

    Raises:
        ValueError: ``samples`` is below 2: there is nothing to compare with. Or a reward is
            infinite, the shape is not two-dimensional, or ``scale_rewards`` is unknown.

    >>> group_advantages(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    tensor([[ 0.7071, -0.7071],
            [ 0.0000,  0.0000]])
    """
    _check(rewards, scale_rewards)
    exact = rewards.double()
    is_scored = ~exact.isnan()
    count = is_scored.sum(dim=1, keepdim=True)
    values = exact.masked_fill(~is_scored, 0.0)
    centred = values - values.sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = centred.masked_fill(~is_scored, 0.0)
    if scale_rewards != "none":
        variance = centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
        floor = std_floor if scale_rewards == "floor" else torch.finfo(torch.float64).tiny
        centred = centred / variance.sqrt().clamp(min=floor)
    is_flat = (_spread(exact, is_scored) < SMALLEST_SPREAD) | (count < 2)
    return centred.masked_fill(is_flat, 0.0).to(rewards.dtype)


def token_advantages(
    group_advantage: float, turn_advantages: Sequence[float], turn_of: Sequence[int]
) -> Tensor:
    """Return A = A_group + A_turn for each token that the policy wrote, 0 for the others.

    Args:
        group_advantage: Advantage A_group of the trajectory.
        turn_advantages: Advantage A_turn of each of its turns, in order.
        turn_of: Turn of each token; -1 for tokens that are not the policy's.

    Returns:
        Token advantages, ``(len(turn_of),)`` float32.

    Raises:
        ValueError: A token belongs to a turn that has no advantage.
    """
    if max(turn_of, default=-1) >= len(turn_advantages):
        raise ValueError(
            f"tokens of turn {max(turn_of)}, but advantages of {len(turn_advantages)} turns"
        )
    return torch.tensor(
        [group_advantage + turn_advantages[turn] if turn >= 0 else 0.0 for turn in turn_of],
        dtype=torch.float32,
    )


def _spread(rewards: Tensor, is_scored: Tensor) -> Tensor:
    highest = rewards.masked_fill(~is_scored, -torch.inf).amax(dim=1, keepdim=True)
    lowest = rewards.masked_fill(~is_scored, torch.inf).amin(dim=1, keepdim=True)
    return highest - lowest


def _check(rewards: Tensor, scale_rewards: str) -> None:
    if scale_rewards not in get_args(ScaleRewards):
        raise ValueError(
            f"scale_rewards is one of {', '.join(get_args(ScaleRewards))}, got {scale_rewards!r}"
        )
    if rewards.ndim != 2 or not rewards.is_floating_point():
        raise ValueError(
            "group_advantages needs float rewards of shape (groups, samples), got "
            f"{rewards.dtype} {tuple(rewards.shape)}"
        )
    if rewards.shape[1] < 2:
        raise ValueError(
            f"group_advantages needs at least 2 samples per task, got {rewards.shape[1]}; raise "
            "grpo.num_generations in flows.yaml"
        )
    if bool(rewards.isinf().any()):
        raise ValueError("a reward is infinite; a reward term must return finite numbers")
