"""One decoding step of a Qwen-VL text model: transformers' computation, with fewer calls.

At one token per row transformers spends most of its time on preparing masks, repeating keys for
grouped heads and rotating queries and keys separately. Here grouped heads share their keys in the
attention product itself, and norms are fused in float32. Layers are called part by part, so
adapters on their projections take effect; other text models, or those with hooks, use transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from ..models.token_model import TokenModel
from .key_value_cache import SlotCache

_KNOWN = ("Qwen2VLTextModel", "Qwen2_5_VLTextModel", "Qwen3VLTextModel")
_TABLE_ROOM = 1024


class TextStep:
    """Decoding step of each row, computed by transformers.

    Args:
        model: Model with the text model to run.
    """

    def __init__(self, model: TokenModel) -> None:
        self._model = model

    @staticmethod
    def of(model: TokenModel) -> TextStep:
        """Return the fast step where it applies, else the one of transformers."""
        return FastTextStep(model) if _is_known(model) else TextStep(model)

    def __call__(
        self, ids: Tensor, positions: Tensor, is_seen: Tensor, *, cache: SlotCache
    ) -> Tensor:
        """Decode one token per row; return the next logits, ``(rows, vocabulary)`` float32.

        Args:
            ids: Token ids, ``(rows,)``.
            positions: Positions, ``(rows,)``; text has the same position on all three axes.
            is_seen: Attention mask over the columns of the cache, ``(rows, columns)``.
            cache: Keys and values so far; `SlotCache.open_step` was called.
        """
        return self._model.step(ids, positions, is_seen, cache=cache)


class FastTextStep(TextStep):
    """The same computation, without the overhead of transformers."""

    def __init__(self, model: TokenModel) -> None:
        super().__init__(model)
        self._text: Any = model.model.model.language_model
        self._table: tuple[Tensor, Tensor] | None = None
        attention = self._text.layers[0].self_attn
        self._width = int(attention.head_dim)
        self._is_fused = self._text.norm.weight.dtype == torch.float32

    def __call__(
        self, ids: Tensor, positions: Tensor, is_seen: Tensor, *, cache: SlotCache
    ) -> Tensor:
        """Decode one token per row; see `TextStep`."""
        text = self._text
        states: Tensor = text.embed_tokens(ids)
        cos, sin = self._rotation(states, positions, cache.columns)
        mask = torch.zeros(is_seen.shape, dtype=states.dtype, device=states.device)
        mask = mask.masked_fill_(~is_seen, -torch.inf)[:, None, None]
        for index, layer in enumerate(text.layers):
            normed = self._norm(layer.input_layernorm, states)
            states = states + self._attend(layer.self_attn, index, normed, (cos, sin, mask), cache)
            normed = self._norm(layer.post_attention_layernorm, states)
            mlp = layer.mlp
            states = states + mlp.down_proj(mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed))
        return self._model.logits(self._norm(text.norm, states))

    def _attend(
        self,
        attention: Any,  # noqa: ANN401 - a transformers attention layer
        index: int,
        states: Tensor,
        around: tuple[Tensor, Tensor, Tensor],
        cache: SlotCache,
    ) -> Tensor:
        cos, sin, mask = around
        rows, width = len(states), self._width
        query = attention.q_proj(states).view(rows, -1, width)
        key = attention.k_proj(states).view(rows, -1, width)
        value = attention.v_proj(states).view(rows, -1, width)
        if hasattr(attention, "q_norm"):
            query = self._norm(attention.q_norm, query)
            key = self._norm(attention.k_norm, key)
        both = torch.cat([query, key], dim=1)
        first, second = both.chunk(2, dim=-1)
        both = both * cos + torch.cat([-second, first], dim=-1) * sin
        heads = query.shape[1]
        keys, values = cache.write(index, both[:, heads:], value)
        grouped = both[:, :heads].view(rows, keys.shape[1], -1, width)
        out = scaled_dot_product_attention(
            grouped, keys, values, attn_mask=mask, scale=attention.scaling
        )
        return attention.o_proj(out.reshape(rows, -1))

    def _norm(self, norm: Any, states: Tensor) -> Tensor:  # noqa: ANN401 - a transformers norm
        if self._is_fused:
            return rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)
        return norm(states)

    def _rotation(self, states: Tensor, positions: Tensor, bound: int) -> tuple[Tensor, Tensor]:
        """Look up cosine and sine of each row's angles, ``(rows, 1, width)`` both."""
        table = self._table
        if table is None or len(table[0]) < bound:
            every = torch.arange(bound + _TABLE_ROOM, device=states.device)
            cos, sin = self._text.rotary_emb(states[None], every.expand(3, 1, -1))
            table = self._table = cos[0], sin[0]
        return table[0][positions][:, None], table[1][positions][:, None]


def _is_known(model: TokenModel) -> bool:
    """Return whether the fast step computes the same as transformers."""
    text: Any = getattr(model.model.model, "language_model", None)
    if type(text).__name__ not in _KNOWN or not model.takes_masks:
        return False
    config = text.config
    is_plain = config.rope_parameters.get("rope_type", "default") == "default"
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    return is_plain and not slides and not any(map(_has_hooks, text.layers))


def _has_hooks(layer: Any) -> bool:  # noqa: ANN401 - a transformers layer
    return bool(
        layer._forward_pre_hooks or layer._forward_hooks or getattr(layer, "_hf_hook", None)
    )
