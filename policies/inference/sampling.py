"""Sampling of the next token: each row uses its own random numbers, whatever its batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..interface import Sampling
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
    logits = logits.masked_fill(~allowed, -torch.inf)
    if sampling.temperature <= 0.0:
        return logits.argmax(dim=-1)
    weights = torch.softmax(logits.double() / sampling.temperature, dim=-1)
    weights = _keep_likely(weights, sampling)
    cumulative = weights.cumsum(dim=-1)
    target = uniform.to(weights)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1)


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
