"""Batching: random batches, and micro-batches of similar length under a token budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .distributed.processes import World, balance

_SPAN = 50  # batches per span that is sorted by length


def epoch_batches(count: int, *, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Split all items into random batches that depend on seed and epoch alone.

    A batch is a uniform sample: batches of similar length would be batches of one task family, and
    a nano model learns from those at a third of the speed. Padding is reduced one level below, by
    `micro_batches`.

    Returns:
        Indices of each batch, ``batch_size`` each; the remainder at the end of an epoch is not
        used in it (with fewer items than one batch, all are used).
    """
    order = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    if count <= batch_size:
        return [order]
    last = count // batch_size * batch_size
    return [order[start : start + batch_size] for start in range(0, last, batch_size)]


def bucket_batches(
    lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Split all items into batches of similar length, in random order.

    Items are drawn as in `epoch_batches`, sorted within spans of ``_SPAN`` batches, and cut: less
    padding, but batches are no longer uniform samples.
    """
    drawn = epoch_batches(len(lengths), batch_size=batch_size, seed=seed, epoch=epoch)
    batches: list[list[int]] = []
    for start in range(0, len(drawn), _SPAN):
        items = [index for batch in drawn[start : start + _SPAN] for index in batch]
        items.sort(key=lambda index: lengths[index])
        batches += [items[at : at + batch_size] for at in range(0, len(items), batch_size)]
    order = np.random.default_rng([seed, epoch, 1]).permutation(len(batches))
    return [batches[int(place)] for place in order]


def batch_at(
    count: int,
    *,
    batch_size: int,
    seed: int,
    step: int,
    lengths: Sequence[int] | None = None,
) -> list[int]:
    """Return the indices of the batch of one step, counted over epochs; needs no other state.

    Args:
        count: Number of items.
        batch_size: Items per batch.
        seed: Random seed of the draw.
        step: Step index, from 0.
        lengths: Lengths of the items, for batches of similar length; None for random batches.
    """
    per_epoch = max(count // batch_size, 1)
    epoch, position = divmod(step, per_epoch)
    if lengths is None:
        return epoch_batches(count, batch_size=batch_size, seed=seed, epoch=epoch)[position]
    return bucket_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch)[position]


def micro_batches(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Split items, longest first, so that padded rows times length stay under ``max_tokens``.

    An item that is longer than that forms a micro-batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def packs(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Pack items into rows of at most ``max_tokens``: first fit, longest first.

    An item that is longer than that forms a row of its own.

    >>> packs([5, 3, 4, 2], max_tokens=7)
    [[0, 3], [2, 1]]
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((n for n, left in enumerate(room) if lengths[index] <= left), None)
        if place is None:
            rows.append([index])
            room.append(max_tokens - lengths[index])
        else:
            rows[place].append(index)
            room[place] -= lengths[index]
    return rows


def micro_shares(
    lengths: Sequence[int],
    *,
    max_tokens: int,
    world: World,
    is_even: bool = False,
    is_packed: bool = False,
) -> list[tuple[list[int], float]]:
    """Return the micro-batches of this process's share, each with the weight of its loss.

    Args:
        lengths: Lengths of all items, over which the shares are balanced.
        max_tokens: Token budget of a micro-batch; see `micro_batches`.
        world: Rank of this process and number of processes.
        is_even: Whether all processes need the same number of micro-batches, as where weights are
            sharded; processes with fewer then repeat an item with weight 0. All others weigh 1.
        is_packed: Whether items are packed end to end (`packs`) instead of padded.
    """
    split = packs if is_packed else micro_batches
    shares = balance(lengths, parts=world.size)
    cut = [
        [
            [share[index] for index in micro]
            for micro in split([lengths[i] for i in share], max_tokens=max_tokens)
        ]
        for share in shares
    ]
    own = [(micro, 1.0) for micro in cut[world.rank]]
    if not is_even:
        return own
    shortest = min(range(len(lengths)), key=lambda i: (lengths[i], i))
    return own + [([shortest], 0.0)] * (max(map(len, cut)) - len(own))


def pad_flags(rows: Sequence[Sequence[bool]], *, length: int) -> Tensor:
    """Stack rows, padded on the right with False, ``(rows, length)`` bool."""
    out = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row, dtype=torch.bool)
    return out
