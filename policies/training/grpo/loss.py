"""The policy-gradient losses of GRPO and its kin per token, and token weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from .config import GRPOConfig, LossType


@dataclass(frozen=True, slots=True, eq=False)
class TokenLosses:
    """Losses of tokens.

    Attributes:
        values: Loss of each token, ``(tokens,)``, with gradient.
        is_clipped: Which tokens' ratios are bounded, ``(tokens,)`` bool; those of the clipped loss
            have no gradient.
    """

    values: Tensor
    is_clipped: Tensor


def policy_losses(
    new: Tensor, old: Tensor, advantages: Tensor, lengths: Sequence[int], config: GRPOConfig
) -> TokenLosses:
    """Return the losses that ``loss_type`` and ``importance_sampling_level`` stand for.

    Args:
        new: Log-probabilities under the weights being trained, ``(tokens,)``.
        old: Log-probabilities before the first update, ``(tokens,)``.
        advantages: Advantage of each token, ``(tokens,)``.
        lengths: Tokens of each trajectory, which add up to ``tokens``.
        config: Settings.
    """
    if config.importance_sampling_level == "sequence":
        logs = sequence_log_ratios(new, old, lengths)
    else:
        logs = new - old
    low, high = config.epsilon, config.epsilon_high
    if config.loss_type == "cispo":
        ratios = logs.detach().exp()
        losses = -ratios.clamp(max=high) * advantages * new
        return TokenLosses(losses, (ratios > high) & (advantages > 0))
    none = torch.zeros_like(new)
    return TokenLosses(
        clipped_loss(logs, none, advantages, epsilon=low, epsilon_high=high),
        is_clipped(logs, none, advantages, epsilon=low, epsilon_high=high),
    )


def sequence_log_ratios(new: Tensor, old: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return log(π_new / π_old) / length of a trajectory for each of its tokens, ``(tokens,)``.

    The gradient of each is that of its own token, so that tokens can have advantages of their own
    (GSPO-token, arXiv 2507.18071, eq. 14); where those are equal, the sum is that of GSPO.

    >>> new = torch.tensor([-1.0, -2.0, -1.0])
    >>> sequence_log_ratios(new, torch.tensor([-1.5, -2.1, -1.0]), [2, 1])
    tensor([0.3000, 0.3000, 0.0000])
    """
    parts = [part.mean().expand(len(part)) for part in (new - old).detach().split(list(lengths))]
    return torch.cat(parts) + (new - new.detach())


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


def clip_covariances(drawn: Tensor, advantages: Tensor, config: GRPOConfig, *, seed: int) -> Tensor:
    """Return advantages with those of some tokens set to 0, by which entropy would fall fastest.

    Clip-Cov (arXiv 2505.22617, eq. 11 and 12): a share ``clip_cov_ratio`` of all tokens is drawn
    among those whose product of centred log-probability and centred advantage is within
    ``clip_cov_lb`` and ``clip_cov_ub``, and has no gradient. Departure: the log-probabilities are
    those of the engine, at sampling, so that the draw is the same in every update of a step.

    Args:
        drawn: Log-probabilities of all own tokens of a step in the engine, ``(tokens,)``.
        advantages: Advantage of each token, ``(tokens,)``.
        config: Settings.
        seed: Random seed of the draw.
    """
    if not len(drawn):
        return advantages
    values, logs = advantages.double(), drawn.double()
    covariances = (logs - logs.mean()) * (values - values.mean())
    is_within = (covariances > config.clip_cov_lb) & (covariances < config.clip_cov_ub)
    candidates = is_within.nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    count = max(int(config.clip_cov_ratio * len(drawn)), 1)
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[:count]]
    return advantages.index_fill(0, chosen, 0.0)


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
            divides by a constant; ``cispo`` weights tokens as ``dapo`` does.
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
    if loss_type in ("dapo", "bnpo", "cispo"):
        return [1.0 / max(sum(lengths), 1)] * len(lengths)
    if loss_type == "grpo":
        return [1.0 / (len(lengths) * max(length, 1)) for length in lengths]
    if loss_type == "dr_grpo":
        return [1.0 / (len(lengths) * budget)] * len(lengths)
    raise ValueError(f"loss_type is one of {', '.join(get_args(LossType))}, got {loss_type!r}")
