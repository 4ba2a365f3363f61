"""Sampling of the next token: each row uses its own random numbers, whatever its batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..interface import Sampling
from ..models.token_model import sampling_logits
from ..seeds import derive_seed


def draw_uniform(seed: int, turn: int, count: int) -> Tensor:
    """Return the uniform numbers of one turn of one episode, ``(count,)`` float64 in [0, 1)."""
    generator = torch.Generator().manual_seed(derive_seed("tokens", seed, turn))
    return torch.rand(count, generator=generator, dtype=torch.float64)


def choose(logits: Tensor, uniform: Tensor, sampling: Sampling, allowed: Tensor) -> Tensor:
    """Draw one token per row by inverting its distribution function.

    Args:
        logits: Logits, ``(rows, vocabulary)``.
        uniform: Uniform number in [0, 1) per row, ``(rows,)``.
        sampling: Temperature (0.0 takes the most likely token), top-k, top-p.
        allowed: Mask of ids that can be drawn, ``(vocabulary,)``.

    Returns:
        Drawn ids, ``(rows,)``.
    """
    if sampling.temperature <= 0.0:
        return logits.masked_fill(~allowed, -torch.inf).argmax(dim=-1)
    weights = _weights(logits, sampling, allowed)
    cumulative = weights.cumsum(dim=-1)
    target = uniform.to(weights)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1)


def sampled_scores(logits: Tensor, chosen: Tensor, sampling: Sampling, allowed: Tensor) -> Tensor:
    """Return the log-probabilities of drawn tokens, in the distribution that they were drawn from.

    Where the most likely token is taken (temperature 0), they are those at temperature 1.

    Args:
        logits: Logits, ``(rows, vocabulary)``.
        chosen: Drawn ids, ``(rows,)``.
        sampling: Temperature, top-k, top-p.
        allowed: Mask of ids that can be drawn, ``(vocabulary,)``.

    Returns:
        Log-probabilities, ``(rows,)`` float32.
    """
    if sampling.temperature > 0.0 and (sampling.top_k or sampling.top_p < 1.0):
        weights = _weights(logits, sampling, allowed)
        shares = weights.gather(1, chosen[:, None]).squeeze(1) / weights.sum(dim=-1)
        return shares.log().float()
    drawn_from = sampling_logits(logits.clone(), allowed, sampling.temperature)
    return drawn_from.log_softmax(dim=-1).gather(1, chosen[:, None]).squeeze(1)


def _weights(logits: Tensor, sampling: Sampling, allowed: Tensor) -> Tensor:
    """Return the weights that tokens are drawn by, ``(rows, vocabulary)`` float64."""
    drawn_from = sampling_logits(logits.to(torch.float64, copy=True), allowed, sampling.temperature)
    return _keep_likely(torch.softmax(drawn_from, dim=-1), sampling)


def _keep_likely(weights: Tensor, sampling: Sampling) -> Tensor:
    """Zero the weights that top-k and top-p exclude; the most likely token always stays."""
    if 0 < sampling.top_k < weights.shape[-1]:
        floor = weights.topk(sampling.top_k, dim=-1).values[:, -1:]
        weights = weights.masked_fill(weights < floor, 0.0)
    if sampling.top_p < 1.0:
        ordered, order = weights.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        total = ordered.sum(dim=-1, keepdim=True)
        dropped = before >= sampling.top_p * total
        dropped[:, 0] = False
        weights = weights.masked_fill(torch.zeros_like(dropped).scatter(1, order, dropped), 0.0)
    return weights
