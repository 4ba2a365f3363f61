"""Which sequences go together: batches of like length, and micro-batches under a token budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_WINDOW = 16  # batches sorted together: like lengths, yet another mixture every epoch


def epoch_batches(
    lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Split all items into batches of like length, in an order given by seed and epoch alone.

    Returns:
        Indices of each batch, every one ``batch_size`` long; the few left over at the end of an
        epoch are not used in it (all are, if there are fewer than one batch).
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths)).tolist()
    if len(order) <= batch_size:
        return [order]
    order = order[: len(order) // batch_size * batch_size]
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * _WINDOW):
        window = sorted(order[start : start + batch_size * _WINDOW], key=lambda i: lengths[i])
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches)).tolist()]


def batch_at(lengths: Sequence[int], *, batch_size: int, seed: int, step: int) -> list[int]:
    """Give the indices of the batch of one step, counted over epochs; needs no other state."""
    per_epoch = max(len(lengths) // batch_size, 1)
    epoch, position = divmod(step, per_epoch)
    return epoch_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch)[position]


def micro_batches(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Split items, longest first, so that padded rows times length stay under ``max_tokens``.

    One item that is longer than that stands alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def pad_flags(rows: Sequence[Sequence[bool]], *, length: int) -> Tensor:
    """Lay rows side by side, False behind the shorter ones, ``(rows, length)`` bool."""
    out = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row, dtype=torch.bool)
    return out
