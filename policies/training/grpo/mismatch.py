"""Mismatch between the engine that sampled tokens and the trainer: weights, masks and figures.

Two programs never compute quite the same probability of a token: kernels, precision and caches
differ, and an engine may still have an earlier step's weights. The gradient is corrected by
importance sampling: each token weighs π_old / π_engine, bounded or masked, where π_old is the
trainer's own probability before the step's first update (arXiv 2505.24298, section 5, eq. 5, for
weights of other steps). Names are TRL's where TRL has the setting or the metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .correction import Correction

UNKNOWN = -1
"""Stands for the number of steps behind of weights whose step is unknown."""

_LARGEST_LOG = 20.0  # log of a ratio: beyond it a weight would overflow, and says nothing more


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Importance weights of tokens.

    Attributes:
        values: Weight of each token, ``(tokens,)``.
        is_limited: Which weights a bound changed, ``(tokens,)`` bool.
    """

    values: Tensor
    is_limited: Tensor


def importance_weights(
    differences: Tensor, lengths: Sequence[int], correction: Correction
) -> Weights:
    """Compute the bounded importance weights of tokens.

    Args:
        differences: log π_old − log π_engine of each token, trajectory after trajectory,
            ``(tokens,)``.
        lengths: Number of tokens of each trajectory, which add up to ``tokens``.
        correction: Mode and bounds.

    >>> drawn = torch.tensor([0.0, 2.0, -1.0])
    >>> importance_weights(drawn, [2, 1], Correction()).values
    tensor([1.0000, 3.0000, 0.3679])
    >>> importance_weights(drawn, [2, 1], Correction(mode="sequence_mask")).values
    tensor([0.0000, 0.0000, 0.3679])
    """
    logs = differences
    if correction.mode.startswith("sequence_"):
        parts = [part.sum().expand(len(part)) for part in differences.split(list(lengths))]
        logs = torch.cat(parts)
    ratios = torch.exp(logs.clamp(-_LARGEST_LOG, _LARGEST_LOG))
    low = 0.0 if correction.clip_min is None else correction.clip_min
    high = math.inf if correction.clip_max is None else correction.clip_max
    is_limited = (ratios < low) | (ratios > high)
    if correction.mode.endswith("_mask"):
        return Weights(ratios.masked_fill(is_limited, 0.0), is_limited)
    return Weights(ratios.clamp(low, high), is_limited)


def is_far_off_policy(
    differences: Tensor, advantages: Tensor, lengths: Sequence[int], threshold: float
) -> Tensor:
    """Return which tokens the off-policy mask leaves out, ``(tokens,)`` bool.

    Args:
        differences: log π_engine − log π_new of each token, trajectory after trajectory,
            ``(tokens,)``.
        advantages: Advantage of each token, ``(tokens,)``.
        lengths: Number of tokens of each trajectory.
        threshold: Largest accepted mean difference of a trajectory.

    >>> is_far_off_policy(
    ...     torch.tensor([0.5, 0.7, 0.1]), torch.tensor([-1.0, 1.0, -1.0]), [2, 1], 0.3
    ... )
    tensor([ True, False, False])
    """
    parts = [part.mean().expand(len(part)) for part in differences.split(list(lengths))]
    return (torch.cat(parts) > threshold) & (advantages < 0)


@dataclass(frozen=True, slots=True)
class MismatchFigures:
    """Figures of the mismatch over tokens.

    Attributes:
        tokens: Number of tokens.
        difference: Sum of the sizes of log π_old − log π_engine.
        largest: Largest of these sizes.
        limited: Number of tokens whose weight a bound changed.
        weight: Sum of the weights.
        square: Sum of the squared weights.
        lowest: Smallest weight.
        highest: Largest weight.
    """

    tokens: int = 0
    difference: float = 0.0
    largest: float = 0.0
    limited: int = 0
    weight: float = 0.0
    square: float = 0.0
    lowest: float = math.inf
    highest: float = 0.0

    @classmethod
    def of(cls, differences: Tensor, weights: Weights) -> MismatchFigures:
        """Return the figures of some tokens."""
        if not len(differences):
            return cls()
        sizes, values = differences.abs().double(), weights.values.double()
        return cls(
            len(sizes),
            float(sizes.sum()),
            float(sizes.max()),
            int(weights.is_limited.sum()),
            float(values.sum()),
            float(values.square().sum()),
            float(values.min()),
            float(values.max()),
        )

    def joined(self, other: MismatchFigures) -> MismatchFigures:
        """Return the figures of the tokens of both."""
        return MismatchFigures(
            self.tokens + other.tokens,
            self.difference + other.difference,
            max(self.largest, other.largest),
            self.limited + other.limited,
            self.weight + other.weight,
            self.square + other.square,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
        )

    @property
    def effective_share(self) -> float:
        """Effective sample size (Σw)² / Σw², as a share of the tokens; 0.0 if all are masked."""
        return self.weight**2 / (self.tokens * self.square) if self.square else 0.0

    def metrics(self, part: str = "") -> dict[str, float]:
        """Return the metrics by name; none of no tokens.

        Args:
            part: Inserted into every name, such as ``behind_1/``.
        """
        if not self.tokens:
            return {}
        difference, ratio = f"sampling_logp_difference/{part}", f"importance_sampling_ratio/{part}"
        return {
            f"{difference}mean": self.difference / self.tokens,
            f"{difference}max": self.largest,
            f"{ratio}min": self.lowest,
            f"{ratio}mean": self.weight / self.tokens,
            f"{ratio}max": self.highest,
            f"{ratio}limited_share": self.limited / self.tokens,
            f"{ratio}effective_share": self.effective_share,
        }


def figures_by_age(
    differences: Tensor, weights: Weights, behind: Tensor
) -> dict[int, MismatchFigures]:
    """Return the figures of tokens by how many steps behind their weights were.

    Args:
        differences: log π_old − log π_engine of each token, ``(tokens,)``.
        weights: Weights of the tokens.
        behind: Number of steps behind, or `UNKNOWN`, of each token, ``(tokens,)``.
    """
    found: dict[int, MismatchFigures] = {}
    for age in behind.unique().tolist():
        chosen = behind == age
        part = Weights(weights.values[chosen], weights.is_limited[chosen])
        found[age] = MismatchFigures.of(differences[chosen], part)
    return found


def mismatch_metrics(by_age: Mapping[int, MismatchFigures]) -> dict[str, float]:
    """Return the metrics of all tokens, and by age of their weights where some were behind."""
    every = MismatchFigures()
    for figures in by_age.values():
        every = every.joined(figures)
    metrics = every.metrics()
    if any(age > 0 for age in by_age):
        metrics |= {
            f"sampled_share/behind_{age}": figures.tokens / every.tokens
            for age, figures in sorted(by_age.items())
            if age != UNKNOWN
        }
        for age, figures in by_age.items():
            metrics |= figures.metrics(f"behind_{age}/") if age != UNKNOWN else {}
    return metrics
