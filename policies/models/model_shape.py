"""Sizes of a vision-language model, read from its configuration; no weights are needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .model_folder import ModelFolderError

_QWEN = "Qwen/Qwen2.5-VL-{}B-Instruct"
_SIZES = {
    # text: width, layers, heads, key-value heads, inner width, vocabulary; vision: inner width
    3: (2048, 36, 16, 2, 11_008, 151_936, 3420),
    7: (3584, 28, 28, 4, 18_944, 152_064, 3420),
    32: (5120, 64, 40, 8, 27_648, 152_064, 3456),
    72: (8192, 80, 64, 8, 29_568, 152_064, 3456),
}
PUBLISHED = tuple(_QWEN.format(size) for size in _SIZES)
"""Models whose configuration is stored here, so that no network access is needed."""


@dataclass(frozen=True, slots=True)
class Tower:
    """One stack of transformer layers.

    Attributes:
        width: Width of the residual stream.
        layers: Number of layers.
        heads: Number of attention heads.
        kv_heads: Number of key-value heads.
        head_width: Width of one head.
        inner: Width inside the feed-forward part.
        parameters: Parameters of its layers and norms, without embeddings.
        largest_layer: Parameters of the largest layer.
        adapted: Parameters of a LoRA adapter of rank one per layer: the sum of inputs plus outputs
            over the layer's projections.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    parameters: int
    largest_layer: int
    adapted: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes that memory and time depend on.

    Attributes:
        name: Name that was asked for.
        text: Language model.
        vision: Vision tower.
        vocabulary: Number of token ids.
        parameters: Number of all parameters, embeddings included.
    """

    name: str
    text: Tower
    vision: Tower
    vocabulary: int
    parameters: int


def read_shape(source: str) -> ModelShape:
    """Read the shape of a published model, a model folder or a ``config.json``, without network.

    Raises:
        ModelFolderError: ``source`` is none of these, or its configuration has no text and vision
            part.
    """
    config = _config(source)
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        network: Any = AutoModelForImageTextToText.from_config(config)
    text, vision = config.get_text_config(), config.vision_config
    layers = network.model.language_model.layers
    width = int(getattr(vision, "embed_dim", None) or vision.hidden_size)
    inner = int(getattr(vision, "intermediate_size", None) or width * vision.mlp_ratio)
    heads = int(vision.num_heads)
    head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelShape(
        name=source,
        text=Tower(
            width=int(text.hidden_size),
            layers=len(layers),
            heads=int(text.num_attention_heads),
            kv_heads=int(text.num_key_value_heads),
            head_width=int(head_width),
            inner=int(text.intermediate_size),
            parameters=_count(layers),
            largest_layer=max(map(_count, layers)),
            adapted=sum(
                module.in_features + module.out_features
                for name, module in layers[0].named_modules()
                if name.endswith("_proj")
            ),
        ),
        vision=Tower(
            width=width,
            layers=len(network.model.visual.blocks),
            heads=heads,
            kv_heads=heads,
            head_width=width // heads,
            inner=inner,
            parameters=_count(network.model.visual),
            largest_layer=max(map(_count, network.model.visual.blocks)),
            adapted=0,
        ),
        vocabulary=int(text.vocab_size),
        parameters=_count(network),
    )


def _count(module: Any) -> int:  # noqa: ANN401 - a torch module
    return sum(parameter.numel() for parameter in module.parameters())


def _config(source: str) -> Any:  # noqa: ANN401 - a transformers configuration
    from transformers import AutoConfig

    if source in PUBLISHED:
        return _published(int(source.split("-")[2].removesuffix("B")))
    path = Path(source)
    file = path / "config.json" if path.is_dir() else path
    try:
        config: Any
        if file.is_file():
            settings = json.loads(file.read_text(encoding="utf-8"))
            config = AutoConfig.for_model(**settings)
        else:
            config = AutoConfig.from_pretrained(source, local_files_only=True)
    except OSError as error:
        raise ModelFolderError(
            f"no configuration for {source!r}: give a model folder, a config.json, a hub id that "
            f"was downloaded, or one of {', '.join(PUBLISHED)}"
        ) from error
    except (ValueError, TypeError) as error:
        raise ModelFolderError(f"{file} is not a model configuration: {error}") from error
    if not hasattr(config, "vision_config"):
        raise ModelFolderError(f"{file} has no vision_config: it is not a vision-language model")
    return config


def _published(size: int) -> Any:  # noqa: ANN401 - a transformers configuration
    from transformers import Qwen2_5_VLConfig

    width, layers, heads, kv_heads, inner, vocabulary, vision_inner = _SIZES[size]
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": inner,
            "vocab_size": vocabulary,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "num_heads": 16,
            "intermediate_size": vision_inner,
            "out_hidden_size": width,
        },
        tie_word_embeddings=size == 3,
    )
