"""A key-value cache that grows in place: appending a token copies that token, not the past."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_CHUNK = 64  # columns added when the buffer is full


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, ``(rows, heads, length, width)``, in a buffer with room."""

    def __init__(self) -> None:
        super().__init__()
        self._key_buffer: Tensor | None = None
        self._value_buffer: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append columns and give all so far."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._key_buffer = self._put(self._key_buffer, key_states, start)
        self._value_buffer = self._put(self._value_buffer, value_states, start)
        self.keys = self._key_buffer[:, :, :end]
        self.values = self._value_buffer[:, :, :end]
        return self.keys, self.values

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be kept several times."""
        length = self.get_seq_length()
        self._key_buffer = _with_room(self.keys.index_select(0, rows))
        self._value_buffer = _with_room(self.values.index_select(0, rows))
        self.keys = self._key_buffer[:, :, :length]
        self.values = self._value_buffer[:, :, :length]

    @staticmethod
    def _put(buffer: Tensor | None, new: Tensor, start: int) -> Tensor:
        if buffer is None:
            return _with_room(new)
        end = start + new.shape[2]
        if end > buffer.shape[2]:
            buffer = _with_room(buffer[:, :, :start], extra=new.shape[2])
        buffer[:, :, start:end] = new
        return buffer


def _with_room(states: Tensor, *, extra: int = 0) -> Tensor:
    rows, heads, length, width = states.shape
    buffer = states.new_zeros(rows, heads, length + extra + _CHUNK, width)
    buffer[:, :, :length] = states
    return buffer


class GrowingCache(Cache):
    """The cache of all layers; rows can be chosen anew at any time."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=GrowingLayer)

    def select(self, rows: Tensor) -> None:
        """Keep these rows of every layer."""
        for layer in self.layers:
            layer.select(rows)


def new_cache() -> GrowingCache:
    """Give an empty cache; used under ``torch.no_grad``, since it writes in place."""
    if torch.is_grad_enabled():
        raise RuntimeError("a growing cache writes in place: use it under torch.no_grad()")
    return GrowingCache()
