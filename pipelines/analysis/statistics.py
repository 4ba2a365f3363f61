"""Shares with Wilson intervals, and paired differences with bootstrap bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of ``count`` trials with its 95 % Wilson interval; NaN without trials."""

    hits: int
    count: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Paired difference between the second and the first of two on the same items.

    Attributes:
        mean: Mean of the items' differences; NaN without items.
        low: Lower end of the 95 % bootstrap interval.
        high: Upper end of the 95 % bootstrap interval.
        count: Number of items that both have.
        better: Number of items on which the second is better.
        worse: Number of items on which the second is worse.
    """

    mean: float
    low: float
    high: float
    count: int
    better: int
    worse: int


def wilson(hits: int, count: int) -> Rate:
    """Return a share with Wilson's score interval (1927), which stays within 0 and 1.

    >>> rate = wilson(8, 10)
    >>> round(rate.low, 3), round(rate.high, 3)
    (0.49, 0.943)
    """
    if count == 0:
        return Rate(0, 0, math.nan, math.nan, math.nan)
    from scipy.stats import binomtest  # most of a second, so not with the module

    interval = binomtest(hits, count).proportion_ci(method="wilson")
    return Rate(hits, count, hits / count, float(interval.low), float(interval.high))


def rate_of(outcomes: Iterable[bool]) -> Rate:
    """Return the share of true outcomes."""
    values = list(outcomes)
    return wilson(sum(values), len(values))


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, seed: int = 0
) -> Difference:
    """Compare two on the same items: ``second - first``, item by item.

    Raises:
        ValueError: The two differ in length.
    """
    if len(first) != len(second):
        raise ValueError(f"paired items expected, got {len(first)} and {len(second)}")
    if not first:
        return Difference(math.nan, math.nan, math.nan, 0, 0, 0)
    gaps = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    values, counts = np.unique(gaps, return_counts=True)
    size = len(gaps)
    drawn = np.random.default_rng(seed).multinomial(size, counts / size, size=RESAMPLES)
    low, high = np.quantile(drawn @ values / size, (0.025, 0.975))
    return Difference(
        mean=float(gaps.mean()),
        low=float(low),
        high=float(high),
        count=size,
        better=int((gaps > 0).sum()),
        worse=int((gaps < 0).sum()),
    )
