import copy

import torch
from codedance.policies.models.vision_tower import patch_vision_attention
from transformers import Qwen2_5_VLForConditionalGeneration

from ..tiny import byte_tokenizer, tiny_config


def test_tower_outputs_and_gradients_are_equal_for_images_of_any_sizes():
    torch.manual_seed(0)
    whole = Qwen2_5_VLForConditionalGeneration(tiny_config(byte_tokenizer()))
    model = whole.model
    grids = torch.tensor([[1, 4, 4], [1, 8, 4], [1, 4, 4], [1, 2, 6]])
    values = torch.randn(int(grids.prod(1).sum()), 1176)
    results: list[tuple[torch.Tensor, torch.Tensor]] = []
    for change in (lambda: None, lambda: patch_vision_attention(whole)):
        change()
        model.zero_grad()
        features = torch.cat(model.get_image_features(values, grids).pooler_output)
        features.square().sum().backward()
        gradients = [p.grad.flatten() for p in model.visual.parameters() if p.grad is not None]
        results.append((features.detach(), torch.cat(gradients)))
    (plain, plain_gradient), (batched, batched_gradient) = results
    assert (plain - batched).abs().max() < 1e-5
    assert (plain_gradient - batched_gradient).abs().max() < 1e-5 * plain_gradient.abs().max()


def test_an_explicitly_selected_flash_kernel_is_kept():
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(byte_tokenizer()))
    model.config.vision_config._attn_implementation_internal = "flash_attention_2"
    patch_vision_attention(model)
    assert model.config.vision_config._attn_implementation == "flash_attention_2"


def test_saved_configuration_does_not_name_our_attention(tmp_path):
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(byte_tokenizer()))
    patch_vision_attention(model)
    model.config.save_pretrained(tmp_path)
    assert "codedance" not in (tmp_path / "config.json").read_text()


def test_copied_model_uses_its_own_weights():
    model = Qwen2_5_VLForConditionalGeneration(tiny_config(byte_tokenizer()))
    patch_vision_attention(model)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        model.model.visual.patch_embed.proj.weight.zero_()
    patch = torch.randn(1, 1176)
    assert copied.model.visual.patch_embed(patch).abs().max() > 0
    assert copied.state_dict().keys() == model.state_dict().keys()
