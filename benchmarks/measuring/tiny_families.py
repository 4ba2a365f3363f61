"""Tiny random models of the true architectures, as ordinary model folders, built without a hub.

Configuration classes are those of the installed transformers, sizes are minimal; the tokenizer has
the 256 bytes and the family's control tokens; the chat template formats turns like the family's
published one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance.policies.models.model_folder import quiet

from .tiny_templates import CHATML, GEMMA, IDEFICS, INTERN, ONEVISION

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
_SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}


@dataclass(frozen=True, slots=True)
class TinyFamily:
    """One architecture of minimal size.

    Attributes:
        model_type: Model type of its configuration.
        controls: Its control tokens: the end of a turn, padding, then all others.
        template: Its chat template.
        config: Arguments of its configuration class; names of tokens stand for their ids.
        processor: Class of its image processor.
        processing: Arguments of the image processor.
        done: Adaptation that the family needed, in a few words.
    """

    model_type: str
    controls: tuple[str, ...]
    template: str
    config: Mapping[str, Any]
    processor: str
    processing: Mapping[str, Any]
    done: str


_QWEN_CONTROLS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_QWEN_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
_QWEN_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 32,
}
_IDEFICS_CONTROLS = (
    "<end_of_utterance>",
    "<|endoftext|>",
    "<|im_start|>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
_IDEFICS_CONFIG = {
    "text_config": {"model_type": "llama", **_TEXT},
    "vision_config": _SIGLIP,
    "scale_factor": 2,
    "image_token_id": "<image>",
}
_IDEFICS_SIZES = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}}

TINY_FAMILIES: Mapping[str, TinyFamily] = {
    "Qwen2.5-VL": TinyFamily(
        "qwen2_5_vl",
        _QWEN_CONTROLS,
        CHATML,
        {
            "text_config": {**_TEXT, "rope_parameters": _MROPE},
            "vision_config": {**_QWEN_VISION, "window_size": 56, "fullatt_block_indexes": [1]},
            **_QWEN_TOKENS,
        },
        "Qwen2VLImageProcessorPil",
        {"min_pixels": 28 * 28, "max_pixels": 112 * 112},
        "nothing: the family of the nano model",
    ),
    "Qwen3-VL": TinyFamily(
        "qwen3_vl",
        _QWEN_CONTROLS,
        CHATML,
        {
            "text_config": {**_TEXT, "rope_parameters": {**_MROPE, "mrope_interleaved": True}},
            "vision_config": {
                **_QWEN_VISION,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
            },
            **_QWEN_TOKENS,
        },
        "Qwen2VLImageProcessorPil",
        {"patch_size": 16, "min_pixels": 32 * 32, "max_pixels": 128 * 128},
        "deep features arranged by position",
    ),
    "Idefics 3": TinyFamily(
        "idefics3",
        _IDEFICS_CONTROLS,
        IDEFICS,
        _IDEFICS_CONFIG,
        "Idefics3ImageProcessorPil",
        _IDEFICS_SIZES,
        "rows and columns of crops written out; replies begin with a space",
    ),
    "SmolVLM": TinyFamily(
        "smolvlm",
        _IDEFICS_CONTROLS,
        IDEFICS,
        _IDEFICS_CONFIG,
        "SmolVLMImageProcessorPil",
        _IDEFICS_SIZES,
        "as Idefics 3; no video processor is needed",
    ),
    "InternVL 3": TinyFamily(
        "internvl",
        ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>"),
        INTERN,
        {
            "text_config": {"model_type": "qwen2", **_TEXT},
            "vision_config": {
                **_SIGLIP,
                "image_size": [28, 28],
                "patch_size": [7, 7],
                "use_mean_pooling": True,
            },
            "image_seq_length": 4,
            "image_token_id": "<IMG_CONTEXT>",
        },
        "GotOcr2ImageProcessorPil",
        {"size": {"height": 28, "width": 28}, "max_patches": 4},
        "crops counted; features of all images as one tensor",
    ),
    "LLaVA-OneVision": TinyFamily(
        "llava_onevision",
        ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<image>", "<video>"),
        ONEVISION,
        {
            "text_config": {"model_type": "qwen2", **_TEXT},
            "vision_config": {"model_type": "siglip_vision_model", **_SIGLIP},
            "image_token_id": "<image>",
            "video_token_id": "<video>",
            "image_grid_pinpoints": [[28, 28], [28, 56], [56, 28], [56, 56]],
        },
        "LlavaOnevisionImageProcessorPil",
        {
            "size": {"height": 28, "width": 28},
            "image_grid_pinpoints": [[28, 28], [28, 56], [56, 28], [56, 56]],
        },
        "each image in one crop, as among several: a tool may return more",
    ),
    "Gemma 3": TinyFamily(
        "gemma3",
        (
            "<end_of_turn>",
            "<pad>",
            "<bos>",
            "<start_of_turn>",
            "<start_of_image>",
            "<end_of_image>",
            "<image_soft_token>",
        ),
        GEMMA,
        {
            "text_config": {
                **_TEXT,
                "sliding_window": 24,
                "layer_types": ["sliding_attention", "full_attention"],
                "query_pre_attn_scalar": 8,
            },
            "vision_config": {"model_type": "siglip_vision_model", **_SIGLIP},
            "mm_tokens_per_image": 4,
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
        },
        "Gemma3ImageProcessorPil",
        {"size": {"height": 28, "width": 28}},
        "masks: windows, and pieces of one image that attend to each other",
    ),
}
"""Families by their common name."""


def build_tiny(family: TinyFamily, folder: Path, *, seed: int = 0, spread: float = 0.2) -> Path:
    """Write a model folder.

    Args:
        family: Architecture of the model.
        folder: Folder to write.
        seed: Random seed of the weights.
        spread: Standard deviation of the weights; large enough that every token matters.
    """
    import torch
    import transformers

    tokenizer = byte_tokenizer(family.controls)
    tokenizer.chat_template = family.template
    config: Any = _config(family, tokenizer)
    factory: Any = transformers.AutoModelForImageTextToText
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = factory.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(0.0, spread)
            _end_sooner(model, tokenizer.convert_tokens_to_ids(family.controls[0]))
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor: Any = _processor(family.processor)(**family.processing)
    processor.save_pretrained(folder)
    return folder


def byte_tokenizer(controls: tuple[str, ...]) -> Any:  # noqa: ANN401 - an untyped library class
    """Return a tokenizer of the 256 bytes and control tokens, the first two for end and padding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    backend: Any = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end, pad, *others = controls
    begin = {"bos_token": "<bos>"} if "<bos>" in others else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=end,
        pad_token=pad,
        additional_special_tokens=others,
        **begin,
    )


def _config(family: TinyFamily, tokenizer: Any) -> Any:  # noqa: ANN401 - untyped library objects
    import transformers

    ids: dict[str, int] = {name: tokenizer.convert_tokens_to_ids(name) for name in family.controls}
    given: dict[str, Any] = {
        name: ids[value] if isinstance(value, str) else value
        for name, value in family.config.items()
    }
    text = dict(given["text_config"])
    text |= {
        "vocab_size": len(tokenizer),
        "pad_token_id": ids[family.controls[1]],
        "eos_token_id": ids[family.controls[0]],
        "bos_token_id": None,
    }
    given |= {"text_config": text, "tie_word_embeddings": True}
    return transformers.AutoConfig.for_model(family.model_type, **given)


def _end_sooner(model: Any, end_id: int) -> None:  # noqa: ANN401 - any transformers model
    """Increase the probability of the end of a turn, so that some turns end before their limit."""
    model.get_input_embeddings().weight[end_id] *= 2.0


def _processor(name: str) -> Any:  # noqa: ANN401 - an untyped library class
    """Return an image processor class with PIL backend, which needs no torchvision."""
    from importlib import import_module

    homes = {
        "Qwen2VLImageProcessorPil": "qwen2_vl",
        "Idefics3ImageProcessorPil": "idefics3",
        "SmolVLMImageProcessorPil": "smolvlm",
        "GotOcr2ImageProcessorPil": "got_ocr2",
        "LlavaOnevisionImageProcessorPil": "llava_onevision",
        "Gemma3ImageProcessorPil": "gemma3",
    }
    home = homes[name]
    module = import_module(f"transformers.models.{home}.image_processing_pil_{home}")
    return getattr(module, name)
