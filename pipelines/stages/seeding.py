"""Deterministic draws of indices."""

from __future__ import annotations

import random


def draw_indices(size: int, count: int, *, seed: int) -> list[int]:
    """Return ``count`` distinct random indices below ``size``, sorted; all if there are fewer.

    >>> draw_indices(3, 5, seed=0)
    [0, 1, 2]
    """
    if count >= size:
        return list(range(size))
    return sorted(random.Random(seed).sample(range(size), count))


def spread_indices(size: int, count: int) -> list[int]:
    """Return ``count`` evenly spaced indices below ``size``; all if there are fewer.

    >>> spread_indices(10, 3)
    [0, 3, 6]
    """
    if count >= size:
        return list(range(size))
    return [number * size // count for number in range(count)]
