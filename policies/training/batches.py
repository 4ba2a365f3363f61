"""Which sequences go together: random batches, and micro-batches of like length under a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .distributed.processes import World, balance

_SPAN = 50  # batches among which items of like length are looked for


def epoch_batches(count: int, *, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Split all items into batches, at random, by seed and epoch alone.

    A batch is a fair draw: batches of like length would be batches of one task family, and a
    nano model learns from those at a third of the speed. Padding is kept small one level below,
    by `micro_batches`.

    Returns:
        Indices of each batch, every one ``batch_size`` long; the few left over at the end of an
        epoch are not used in it (all are, if there are fewer than one batch).
    """
    order = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    if count <= batch_size:
        return [order]
    last = count // batch_size * batch_size
    return [order[start : start + batch_size] for start in range(0, last, batch_size)]


def bucket_batches(
    lengths: Sequence[int], *, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Split all items into batches of like length, which come in random order.

    Items are drawn as in `epoch_batches`, sorted within spans of ``_SPAN`` batches, and cut: less
    padding, but no fair draw any more.
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
        count: How many items there are.
        batch_size: How many a batch has.
        seed: Of the draw.
        step: Counted from 0.
        lengths: Of the items, for batches of like length; None for random ones.
    """
    per_epoch = max(count // batch_size, 1)
    epoch, position = divmod(step, per_epoch)
    if lengths is None:
        return epoch_batches(count, batch_size=batch_size, seed=seed, epoch=epoch)[position]
    return bucket_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch)[position]


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


def packs(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Split items into rows of at most ``max_tokens``, each put where it first fits, longest first.

    One item that is longer than that stands alone.

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
        lengths: Of all items, over which the shares are balanced.
        max_tokens: See `micro_batches`.
        world: Who this process is.
        is_even: Whether all processes must have equally many, as where weights are sharded; then
            some repeat an item with weight 0, others 1.
        is_packed: Whether items are laid one after another (`packs`), not side by side.
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
    """Lay rows side by side, False behind the shorter ones, ``(rows, length)`` bool."""
    out = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row, dtype=torch.bool)
    return out
