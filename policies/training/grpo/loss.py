"""The clipped policy-gradient loss of GRPO per token, and token weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from .config import LossType


def clipped_loss(
    new: Tensor, old: Tensor, advantages: Tensor, *, epsilon: float, epsilon_high: float
) -> Tensor:
    """Return -min(rA, clip(r, 1 - epsilon, 1 + epsilon_high)A), r = exp(new - old), for each token.

    The clip of PPO (arXiv 1707.06347, eq. 7), asymmetric as in DAPO (arXiv 2503.14476, eq. 8).

    Args:
        new: Log-probabilities under the weights being trained, ``(tokens,)``.
        old: Log-probabilities when the tokens were drawn, ``(tokens,)``.
        advantages: Advantage of each token, ``(tokens,)``.
        epsilon: Lower clipping range of the ratio.
        epsilon_high: Upper clipping range of the ratio.
    """
    ratio = torch.exp(new - old)
    bounded = ratio.clamp(1.0 - epsilon, 1.0 + epsilon_high)
    return -torch.minimum(ratio * advantages, bounded * advantages)


def is_clipped(
    new: Tensor, old: Tensor, advantages: Tensor, *, epsilon: float, epsilon_high: float
) -> Tensor:
    """Return which tokens have no gradient because their ratio is clipped."""
    ratio = torch.exp(new - old)
    is_low = (ratio < 1.0 - epsilon) & (advantages < 0)
    is_high = (ratio > 1.0 + epsilon_high) & (advantages > 0)
    return is_low | is_high


def kl_estimate(new: Tensor, reference: Tensor) -> Tensor:
    """Return exp(d) - d - 1, d = reference - new, for each token: unbiased, never below 0.

    The estimator of GRPO (arXiv 2402.03300, eq. 4).
    """
    difference = reference - new
    return torch.exp(difference) - difference - 1.0


def token_weights(lengths: Sequence[int], loss_type: LossType, *, budget: int = 1) -> list[float]:
    """Return the weight of each token of a trajectory in the loss of the whole batch.

    Args:
        lengths: Own tokens of each scored trajectory.
        loss_type: Loss type, with TRL's names. ``dapo`` and ``bnpo`` weight all tokens of the batch
            equally (they differ in TRL where a batch is cut; here it counts as a whole); ``grpo``
            weights trajectories equally, whatever their length; ``dr_grpo`` (arXiv 2503.20783)
            divides by a constant.
        budget: Divisor of ``dr_grpo``: the token limit of a trajectory.

    Raises:
        ValueError: ``loss_type`` is unknown.

    >>> token_weights([1, 3], "dapo")
    [0.25, 0.25]
    >>> token_weights([1, 4], "grpo")
    [0.5, 0.125]
    >>> token_weights([1, 4], "dr_grpo", budget=8)
    [0.0625, 0.0625]
    """
    if loss_type in ("dapo", "bnpo"):
        return [1.0 / max(sum(lengths), 1)] * len(lengths)
    if loss_type == "grpo":
        return [1.0 / (len(lengths) * max(length, 1)) for length in lengths]
    if loss_type == "dr_grpo":
        return [1.0 / (len(lengths) * budget)] * len(lengths)
    raise ValueError(f"loss_type is one of {', '.join(get_args(LossType))}, got {loss_type!r}")
