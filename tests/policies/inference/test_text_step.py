"""The fast decoding step equals transformers' own, in every supported family."""

import pytest
import torch
from codedance.policies.inference.engine import Prompt, Slots
from codedance.policies.inference.text_step import FastTextStep, TextStep
from codedance.policies.interface import Sampling
from codedance.policies.models.token_model import TokenModel
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ..models.test_families import MAKERS
from ..tiny import byte_tokenizer, noise, tiny_config


def qwen2_5_vl():
    return tiny_config(byte_tokenizer()), 14


FAMILIES = {**MAKERS, "qwen2_5_vl": (qwen2_5_vl, Qwen2_5_VLForConditionalGeneration)}


def make(family: str) -> TokenModel:
    config_of, kind = FAMILIES[family]
    config, side = config_of()
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2)
    processor = Qwen2VLImageProcessorPil(
        patch_size=side, min_pixels=4 * side**2, max_pixels=64 * side**2
    )
    return TokenModel(model, byte_tokenizer(), processor)


def prompts(model: TokenModel) -> list[Prompt]:
    from codedance.envs.types import Message

    made: list[Prompt] = []
    for seed in range(5):
        pictures = [noise(seed + n, 56 + 28 * n, 84) for n in range(1 + seed % 2)]
        ids = model.chat.open_prompt([Message("user", (*pictures, "how many? " * seed))])
        made.append(Prompt(tuple(ids), pictures, seed=seed, turn=0, limit=20 + seed))
    return made


def written(model: TokenModel) -> tuple[list[list[int]], list[float]]:
    slots = Slots(model, Sampling(), count=5)
    made = slots.join(prompts(model))
    while slots.busy:
        slots.advance()
    return [one.ids for one in made], [s for one in made for s in one.log_probabilities]


@pytest.mark.parametrize("family", FAMILIES)
def test_fast_step_samples_and_scores_like_the_librarys_own(family, monkeypatch):
    model = make(family)
    assert type(TextStep.of(model)) is FastTextStep
    quick_ids, quick = written(model)
    monkeypatch.setattr(TextStep, "of", staticmethod(TextStep))
    ids, scores = written(model)
    assert quick_ids == ids
    assert quick == pytest.approx(scores, abs=2e-5)


def test_adapters_on_the_projections_take_effect():
    model = make("qwen2_5_vl")
    before, _ = written(model)
    projection = model.model.model.language_model.layers[0].mlp.down_proj
    projection.register_forward_hook(lambda _, __, out: -out)
    assert written(model)[0] != before


def test_a_model_with_hooks_on_its_layers_uses_the_librarys_step():
    model = make("qwen2_5_vl")
    model.model.model.language_model.layers[1].register_forward_hook(lambda *_: None)
    assert type(TextStep.of(model)) is TextStep


def test_a_model_with_another_rope_uses_the_librarys_step():
    model = make("qwen2_5_vl")
    model.model.model.language_model.config.rope_parameters["rope_type"] = "dynamic"
    assert type(TextStep.of(model)) is TextStep
