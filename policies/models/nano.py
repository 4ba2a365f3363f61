"""The embedded default model: a Qwen2.5-VL of a few million parameters, built from config and text.

`build_nano` writes a standard checkpoint folder (config, safetensors, tokenizer, image processor,
chat template, codedance.json) with random weights; it is loaded exactly like
``Qwen/Qwen2.5-VL-7B-Instruct``. Images are resized to about 112×112 pixels, so that code pays off
on fine detail.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PIECES = r"(?<![^\n\d>])\d(?=\d*(?:[\n<]|\z))|</?[a-z_]+>|```(?:python)?|\n *|[^\n<`]+|[<`]"
"""Pre-tokenization: text is split, before bytes are merged, at the digits of a number that stands
alone (so that any number can be copied), at tags, fences and indents. Elsewhere merges can cross
words, as in superword BPE (arXiv 2503.13423), up to `LONGEST_TOKEN` characters."""
LONGEST_TOKEN = 16
INITIAL_SPREAD = 0.08
"""Standard deviation of random weights, about 1 / sqrt(width); Qwen's 0.02 fits widths of thousands
and would delay a nano model's learning by hundreds of steps."""


@dataclass(frozen=True, slots=True)
class NanoConfig:
    """Sizes of a nano model; the defaults have about 1.9 million parameters.

    Attributes:
        width: Width of the text model.
        text_layers: Layers of the text model.
        vision_width: Width of the vision tower.
        vision_layers: Layers of the vision tower.
        heads: Attention heads of both.
        picture_side: Side length that images are resized to, in pixels: the area is about its
            square.
        vocabulary: Largest number of tokens.
        seed: Random seed of the weights.
    """

    width: int = 128
    text_layers: int = 4
    vision_width: int = 128
    vision_layers: int = 2
    heads: int = 4
    picture_side: int = 112
    vocabulary: int = 1536
    seed: int = 0


def build_nano(
    folder: Path | str,
    corpus: Iterable[str],
    config: NanoConfig | None = None,
    *,
    families: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write a nano model with random weights as a checkpoint folder.

    Args:
        folder: Output folder; created if absent.
        corpus: Training text of the tokenizer; any text can be encoded.
        config: Sizes and random seed.
        families: Questions that the model will be trained on, by family; ``codedance ask`` reads
            them.

    Returns:
        The output folder.
    """
    config = config or NanoConfig()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(corpus, config.vocabulary)
    _save_tokenizer(tokenizer, folder)
    _save_image_processor(config, folder)
    _save_model(tokenizer, config, folder)
    about = {
        "system_prompt": "",
        "families": {name: list(phrases) for name, phrases in (families or {}).items()},
        "nano": asdict(config),
    }
    (folder / "codedance.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return folder


def train_tokenizer(corpus: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer; digits stay single, so that numbers can be copied."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=LONGEST_TOKEN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in CONTROL_TOKENS if t != "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(str(folder))


def _save_image_processor(config: NanoConfig, folder: Path) -> None:
    pixels = config.picture_side**2
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": pixels, "longest_edge": pixels},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _save_model(tokenizer: Tokenizer, config: NanoConfig, folder: Path) -> None:
    import torch
    from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    token = {name: index for index, name in enumerate(CONTROL_TOKENS)}
    head = config.width // config.heads
    settings = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": config.width,
            "intermediate_size": 3 * config.width,
            "num_hidden_layers": config.text_layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": max(config.heads // 2, 1),
            "initializer_range": INITIAL_SPREAD,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [head // 2 - 2 * (head // 6), head // 6, head // 6],
            },
            "bos_token_id": None,
            "eos_token_id": token["<|im_end|>"],
            "pad_token_id": token["<|endoftext|>"],
        },
        vision_config={
            "depth": config.vision_layers,
            "hidden_size": config.vision_width,
            "intermediate_size": 3 * config.vision_width,
            "num_heads": config.heads,
            "out_hidden_size": config.width,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "initializer_range": INITIAL_SPREAD,
            "fullatt_block_indexes": list(range(config.vision_layers)),
        },
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Qwen2_5_VLForConditionalGeneration(settings)
        patches = model.model.visual.patch_embed.proj.weight
        torch.nn.init.normal_(patches, std=patches[0].numel() ** -0.5)
    model.generation_config = GenerationConfig(
        eos_token_id=token["<|im_end|>"], pad_token_id=token["<|endoftext|>"]
    )
    model.save_pretrained(str(folder))
