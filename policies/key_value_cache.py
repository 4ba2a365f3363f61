"""A key-value cache that grows in place: appending a token copies that token, not the past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_CHUNK = 64  # columns added when the buffer is full


@dataclass(frozen=True, slots=True, eq=False)
class RowStates:
    """Keys and values of one row, for a turn that goes on later.

    Attributes:
        length: Tokens covered.
        layers: Keys and values of each layer, ``(heads, length, width)``.
    """

    length: int
    layers: tuple[tuple[Tensor, Tensor], ...]


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, ``(rows, heads, length, width)``, in buffers with room."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers: tuple[Tensor, Tensor] | None = None
        self._length = 0

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ANN401 - transformers passes what it has
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[Tensor, Tensor]:
        """Append columns and give all so far."""
        del args, kwargs
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._length + key_states.shape[2]
        if self._buffers is None:
            self._buffers = _with_room(key_states, end), _with_room(value_states, end)
        elif end > self._buffers[0].shape[2]:
            keys, values = self._past()
            self._buffers = _with_room(keys, end), _with_room(values, end)
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self._length : end] = new
        self._length = end
        self.keys, self.values = self._past()
        return self.keys, self.values

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be kept several times."""
        keys, values = (states.index_select(0, rows) for states in self._past())
        self._buffers = _with_room(keys, self._length), _with_room(values, self._length)
        self.keys, self.values = self._past()

    def row(self, row: int, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Copy some columns of one row, ``(heads, columns, width)``."""
        keys, values = self._past()
        return keys[row][:, columns], values[row][:, columns]

    def get_seq_length(self) -> int:
        """Give how many columns are filled."""
        return self._length

    def _past(self) -> tuple[Tensor, Tensor]:
        if self._buffers is None:
            raise RuntimeError("the cache is empty: nothing was fed to the model yet")
        keys, values = self._buffers
        return keys[:, :, : self._length], values[:, :, : self._length]


def _with_room(states: Tensor, length: int) -> Tensor:
    """Copy states into a buffer for at least ``length`` columns and a chunk more."""
    rows, heads, filled, width = states.shape
    buffer = states.new_zeros(rows, heads, length + _CHUNK, width)
    buffer[:, :, :filled] = states
    return buffer


class GrowingCache(Cache):
    """The cache of all layers; rows can be chosen anew at any time.

    Raises:
        RuntimeError: Gradients are on: the cache writes in place.
    """

    def __init__(self) -> None:
        if torch.is_grad_enabled():
            raise RuntimeError("a growing cache writes in place: use it under torch.no_grad()")
        super().__init__(layer_class_to_replicate=GrowingLayer)

    def select(self, rows: Tensor) -> None:
        """Keep these rows of every layer."""
        for layer in self._growing():
            layer.select(rows)

    def row(self, row: int, columns: Tensor) -> RowStates:
        """Copy some columns of one row."""
        return RowStates(len(columns), tuple(one.row(row, columns) for one in self._growing()))

    @classmethod
    def of_rows(cls, rows: Sequence[RowStates]) -> GrowingCache:
        """Lay rows side by side, zeros behind the shorter ones."""
        cache = cls()
        longest = max(row.length for row in rows)
        for index, (first, _) in enumerate(rows[0].layers):
            heads, _, width = first.shape
            both = first.new_zeros(2, len(rows), heads, longest, width)
            for slot, row in enumerate(rows):
                for which, states in enumerate(row.layers[index]):
                    both[which, slot, :, : row.length] = states
            cache.update(both[0], both[1], index)
        return cache

    def _growing(self) -> list[GrowingLayer]:
        return [layer for layer in self.layers if isinstance(layer, GrowingLayer)]
