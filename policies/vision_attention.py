"""The vision tower's attention over many pictures at once instead of one after the other.

transformers loops over pictures in python unless a flash kernel is asked for. A flash-style
function gets all of them with their lengths; this one groups pictures of one length into a batch
and calls torch's scaled dot product once a length, with equal results.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_NAME = "codedance_flash_batched"  # "flash" makes transformers pass the lengths along


def batched_attention(
    module: Any,  # noqa: ANN401 - the calling layer, unused
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    **options: Any,  # noqa: ANN401 - transformers passes what it has
) -> tuple[Tensor, None]:
    """Attend within each segment of a packed row, segments of equal length together.

    Args:
        module: The layer that calls.
        query: ``(1, heads, tokens, width)``; key and value alike.
        key: See query.
        value: See query.
        attention_mask: Must be None: segments are told by ``cu_seq_lens_q``.
        **options: ``cu_seq_lens_q`` ``(segments + 1,)``, ``scaling``.

    Returns:
        ``(1, tokens, heads, width)`` and no weights.
    """
    bounds: Tensor = options["cu_seq_lens_q"]
    lengths = bounds.diff()
    scaling: float = options["scaling"]
    packed = torch.cat([query, key, value])  # (3, heads, tokens, width)
    sizes = lengths.unique().tolist()
    if len(sizes) == 1:
        return _attend(packed, sizes[0], scaling)[None], None
    out = packed.new_empty(packed.shape[2], packed.shape[1], packed.shape[3])
    for size in sizes:
        starts = bounds[:-1][lengths == size].long()
        rows = (starts[:, None] + torch.arange(size, device=starts.device)).reshape(-1)
        out = out.index_copy(0, rows, _attend(packed[:, :, rows], size, scaling))
    return out[None], None


def _attend(packed: Tensor, size: int, scaling: float) -> Tensor:
    """Attend in equal segments of ``size``; gives ``(tokens, heads, width)``."""
    _, heads, tokens, width = packed.shape
    query, key, value = packed.reshape(3, heads, tokens // size, size, width).transpose(1, 2)
    out = scaled_dot_product_attention(query, key, value, scale=scaling)
    return out.transpose(1, 2).reshape(tokens, heads, width)


def use_batched_attention(model: Any) -> None:  # noqa: ANN401 - any Qwen-VL model
    """Let a model's vision tower attend to all pictures at once; flash kernels are left alone."""
    from transformers import AttentionInterface

    if "flash" in (model.config.vision_config._attn_implementation or ""):
        return
    AttentionInterface.register(_NAME, batched_attention)
    model.config.vision_config._attn_implementation = _NAME
