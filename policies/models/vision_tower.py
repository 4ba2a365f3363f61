"""Vision-tower optimizations: batched attention over images, patch projection as a product.

transformers loops over images in Python unless a flash kernel is configured. A flash-style
function gets all of them with their lengths; this one groups images of one length into a batch
and calls torch's scaled dot product once per length. Patches do not overlap, so their convolution
is a matrix product, which is five times faster on a CPU. Results are equal up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

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
        module: Calling layer.
        query: Queries, ``(1, heads, tokens, width)``.
        key: Keys, shaped like ``query``.
        value: Values, shaped like ``query``.
        attention_mask: Must be None: ``cu_seq_lens_q`` defines the segments.
        **options: ``cu_seq_lens_q`` ``(segments + 1,)``, ``scaling``.

    Returns:
        Output, ``(1, tokens, heads, width)``, and no weights.
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
    """Attend in equal segments of ``size``; return ``(tokens, heads, width)``."""
    _, heads, tokens, width = packed.shape
    query, key, value = packed.reshape(3, heads, tokens // size, size, width).transpose(1, 2)
    out = scaled_dot_product_attention(query, key, value, scale=scaling)
    return out.transpose(1, 2).reshape(tokens, heads, width)


class PatchProjection(nn.Conv3d):
    """A convolution whose input is exactly one kernel wide: a matrix product."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's parameter name
        """Project patches, ``(patches, channels, frames, side, side)``."""
        out = linear(input.flatten(1), self.weight.flatten(1), self.bias)
        return out[:, :, None, None, None]


def patch_vision_attention(model: Any) -> None:  # noqa: ANN401 - any Qwen-VL model
    """Patch a model's vision tower: batched attention, patch projection as a matrix product.

    A configured flash kernel is not replaced.
    """
    from transformers import AttentionInterface

    projection = model.model.visual.patch_embed.proj
    if type(projection) is nn.Conv3d and projection.kernel_size == projection.stride:
        projection.__class__ = PatchProjection
    if "flash" not in (model.config.vision_config._attn_implementation or ""):
        AttentionInterface.register(_NAME, batched_attention)
        model.config.vision_config._attn_implementation = _NAME
