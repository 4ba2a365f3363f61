"""Every model family that `load_policy` supports is exact, not only that of the nano model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from codedance.envs.types import Message
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Conversation, Sampling
from codedance.policies.models.model_folder import QWEN_FAMILIES
from codedance.policies.models.token_model import TokenModel
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ..tiny import byte_tokenizer, noise, tiny_config


def qwen2_vl() -> tuple[PreTrainedConfig, int]:
    base = tiny_config(byte_tokenizer())
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    return Qwen2VLConfig(**shared(base), vision_config=vision), 14


def qwen3_vl() -> tuple[PreTrainedConfig, int]:
    base = tiny_config(byte_tokenizer())
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    parts = shared(base)
    parts["text_config"] |= {"head_dim": 8}
    parts["text_config"]["rope_parameters"]["mrope_interleaved"] = True
    return Qwen3VLConfig(**parts, vision_config=vision), 16


def shared(base: Any) -> dict[str, Any]:
    text = base.text_config.to_dict()
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    kept += ("num_attention_heads", "num_key_value_heads", "rope_parameters", "pad_token_id")
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {
        "text_config": {name: text[name] for name in kept},
        "tie_word_embeddings": True,
        **{name: getattr(base, name) for name in tokens},
    }


MAKERS: dict[str, tuple[Callable[[], tuple[PreTrainedConfig, int]], type[PreTrainedModel]]] = {
    "qwen2_vl": (qwen2_vl, Qwen2VLForConditionalGeneration),
    "qwen3_vl": (qwen3_vl, Qwen3VLForConditionalGeneration),
}


def test_every_supported_family_is_tested():
    assert {*MAKERS, "qwen2_5_vl"} == set(QWEN_FAMILIES)  # all other tests use the last one


@pytest.mark.parametrize("family", MAKERS)
def test_generation_is_exact_in_every_family(family: str):
    make, kind = MAKERS[family]
    config, side = make()
    models: list[PreTrainedModel] = []
    for _ in range(2):
        torch.manual_seed(0)
        model = kind(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.2)
            model.lm_head.weight[byte_tokenizer().convert_tokens_to_ids("<|im_end|>")] *= 6.0
        models.append(model)
    ours, plain = models
    processor = Qwen2VLImageProcessorPil(
        patch_size=side, min_pixels=4 * side**2, max_pixels=64 * side**2
    )
    policy = VisionLanguagePolicy(TokenModel(ours, byte_tokenizer(), processor), policy_id=family)
    conversations = [
        Conversation([Message("user", (noise(seed, 60 + 40 * seed), "q" * seed))], seed=seed)
        for seed in range(4)
    ]
    for turn in range(2):
        replies = policy.reply(conversations, sampling=Sampling(max_new_tokens=40))
        for one, reply in zip(conversations, replies, strict=True):
            picture = noise(9 + turn, 90, 40)
            one.messages.append(Message("assistant", (reply.text,)))
            one.messages.append(Message("user", ("<tool_response>", picture, "!")))
            one.turn += 1
    for one in conversations:
        tokens = one.tokens
        assert tokens is not None
        ids = torch.tensor([tokens.ids])
        images = [image for message in one.messages for image in message.images][: tokens.images]
        inputs = processor(images=images, return_tensors="pt")
        types = (ids == config.image_token_id).int()
        with torch.no_grad():
            logits = plain(input_ids=ids, mm_token_type_ids=types, **inputs).logits
        logits[..., list(policy.model.encoder.forbidden_ids)] = -torch.inf  # never sampled
        expected = logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        own = torch.tensor(tokens.mask[1:])
        drawn = torch.tensor(tokens.log_probabilities[1:])
        assert own.sum() >= 2
        assert (drawn - expected)[own].abs().max() < 1e-4
