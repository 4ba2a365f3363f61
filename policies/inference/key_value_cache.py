"""A key-value cache with slots: rows join, grow by a token per step, and leave; buffers are reused.

Row ``i`` holds its tokens in columns ``0 … lengths[i] - 1``, without gaps; a mask hides the columns
behind them. When a row leaves, its keys and values are returned and the last row takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

_CHUNK = 64  # columns added when the buffers are full, at least


@dataclass(frozen=True, slots=True, eq=False)
class RowStates:
    """Keys and values of one row, from which a later turn continues.

    Attributes:
        length: Number of cached tokens.
        layers: Keys and values of each layer, ``(2, heads, length, width)``.
    """

    length: int
    layers: tuple[Tensor, ...]


def past_cache(rows: Sequence[RowStates]) -> DynamicCache:
    """Batch rows for a prefill that continues from them, padded on the right with zeros."""
    cache = DynamicCache()
    longest = max(row.length for row in rows)
    for index, first in enumerate(rows[0].layers):
        _, heads, _, width = first.shape
        both = first.new_zeros(2, len(rows), heads, longest, width)
        for slot, row in enumerate(rows):
            both[:, slot, :, : row.length] = row.layers[index]
        cache.update(both[0], both[1], index)
    return cache


class SlotCache(Cache):
    """The keys and values of the rows in generation.

    Args:
        slots: Largest number of rows.

    Raises:
        RuntimeError: Gradients are on: the cache writes in place.
    """

    def __init__(self, slots: int) -> None:
        if torch.is_grad_enabled():
            raise RuntimeError("a slot cache writes in place: use it under torch.no_grad()")
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.slots = slots
        self.lengths: list[int] = []
        self._buffers: list[Tensor] = []  # per layer: (2, rows, heads, columns, width)
        self._ends: Tensor | None = None  # columns of this step's tokens, (rows,)
        self._rows: Tensor | None = None

    @property
    def columns(self) -> int:
        """Number of columns that the longest row fills."""
        return max(self.lengths, default=0)

    def join(self, source: DynamicCache, rows: Tensor, columns: Tensor, lengths: list[int]) -> None:
        """Add rows from a prefill's cache.

        Args:
            source: Cache of the prefill.
            rows: Row of ``source`` that each new one copies, ``(new,)``; several can copy one.
            columns: Columns of ``source`` to copy, in order, ``(new, longest)``; those behind a
                row's own length are arbitrary.
            lengths: Length of each new row.

        Raises:
            ValueError: There are more rows than free slots.
        """
        begin, end = len(self.lengths), len(self.lengths) + len(lengths)
        if end > self.slots:
            raise ValueError(f"{len(lengths)} rows join, but {self.slots - begin} slots are free")
        layers: list[Any] = list(source.layers)
        if not self._buffers:
            self._buffers = [self._empty(layer.keys) for layer in layers]
        self._make_room(max(lengths), rows=end)
        longest = columns.shape[1]
        for buffer, layer in zip(self._buffers, layers, strict=True):
            for which, states in enumerate((layer.keys, layer.values)):
                taken = states[rows[:, None], :, columns]  # (new, longest, heads, width)
                buffer[which, begin:end, :, :longest] = taken.transpose(1, 2)
        self.lengths += lengths

    def states(self, row: int) -> RowStates:
        """Return a copy of one row's keys and values."""
        length = self.lengths[row]
        return RowStates(length, tuple(one[:, row, :, :length].clone() for one in self._buffers))

    def keep(self, order: Sequence[int]) -> None:
        """Remove rows: row ``i`` becomes the former row ``order[i]``, which is at or behind it."""
        moved = [(place, row) for place, row in enumerate(order) if place != row]
        if moved:
            device = self._buffers[0].device
            to, of = (torch.tensor(side, device=device) for side in zip(*moved, strict=True))
            for buffer in self._buffers:
                buffer[:, to] = buffer[:, of]
        self.lengths = [self.lengths[row] for row in order]

    def open_step(self) -> Tensor:
        """Make room for one more token per row; return the attention mask, ``(rows, columns)``."""
        self._make_room(self.columns + 1)
        device = self._buffers[0].device
        self._ends = torch.tensor(self.lengths, device=device)
        self._rows = torch.arange(len(self.lengths), device=device)
        self.lengths = [length + 1 for length in self.lengths]
        return torch.arange(self.columns, device=device) <= self._ends[:, None]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store this step's keys and values, ``(rows, heads, width)``; return all of the rows'."""
        buffer = self._buffers[layer]
        buffer[0][self._rows, :, self._ends] = keys
        buffer[1][self._rows, :, self._ends] = values
        count, columns = len(self.lengths), self.columns
        return buffer[0, :count, :, :columns], buffer[1, :count, :, :columns]

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,  # noqa: ANN401 - transformers passes what it has
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[Tensor, Tensor]:
        """Store one token per row, called by transformers' layers."""
        del args, kwargs
        return self.write(layer_idx, key_states[:, :, 0], value_states[:, :, 0])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of columns filled before this step."""
        del layer_idx
        return max(self.columns - 1, 0)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return the number of columns that a mask covers, and the first of them."""
        del query_length, layer_idx
        return self.columns, 0

    def _empty(self, states: Tensor) -> Tensor:
        _, heads, _, width = states.shape
        return states.new_zeros(2, 0, heads, 0, width)

    def _make_room(self, columns: int, *, rows: int = 0) -> None:
        """Enlarge the buffers where they are too small; a server's slots are mostly empty."""
        have_rows, have = self._buffers[0].shape[1], self._buffers[0].shape[3]
        if columns <= have and rows <= have_rows:
            return
        if columns > have:
            columns = max(columns, have + have // 4) + _CHUNK
        if rows > have_rows:
            rows = min(max(rows, 2 * have_rows), self.slots)
        for index, old in enumerate(self._buffers):
            heads, width = old.shape[2], old.shape[4]
            fresh = old.new_zeros(2, max(rows, have_rows), heads, max(columns, have), width)
            fresh[:, :have_rows, :, :have] = old
            self._buffers[index] = fresh
