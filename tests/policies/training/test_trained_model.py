"""Effects of precision, checkpointing and adapters, and what they must not change."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codedance.policies import load_policy
from codedance.policies.models.model_folder import ModelFolderError, load_token_model
from codedance.policies.training.optimiser import Optimiser, Schedule
from codedance.policies.training.sft import SFTConfig
from codedance.policies.training.trained_model import TrainedModel
from codedance.policies.training.training_setup import TrainingSetup
from torch import nn

from .test_sft import DEMONSTRATIONS, cut_short, run, same, weights

CONFIG = SFTConfig(steps=4, batch_size=4, learning_rate=5e-3, warmup_steps=1, save_every=2)
LORA = replace(CONFIG, lora_r=4, lora_alpha=8, lora_dropout=0.1)


def losses(log: list[tuple[int, dict[str, float]]]) -> list[float]:
    return [metrics["loss"] for _, metrics in log]


def test_checkpointing_changes_no_bit(tiny_folder, tmp_path):
    plain, log = run(tiny_folder, tmp_path / "plain", CONFIG)
    frugal, other = run(
        tiny_folder, tmp_path / "frugal", replace(CONFIG, gradient_checkpointing=True)
    )
    assert losses(log) == losses(other)
    assert same(plain, frugal)


def test_checkpointing_keeps_fewer_activations(tiny_folder):
    kept: list[int] = []
    for setup in (TrainingSetup(), TrainingSetup(gradient_checkpointing=True)):
        trained = TrainedModel(tiny_folder, setup, seed=0)
        trained.begin_step(0)
        saved: set[int] = set()
        item = trained.model.chat.encode(DEMONSTRATIONS[0].messages)
        from codedance.policies.models.token_model import PicturedIds

        batch = trained.model.pad([PicturedIds(item.ids, item.images)])
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: (saved.add(t.untyped_storage().data_ptr()), t)[1], lambda t: t
        ):
            hidden = trained.model.hidden(batch)
        kept.append(len(saved))
        assert hidden.requires_grad
    assert kept[1] < 0.5 * kept[0]


def test_half_precision_learns_and_keeps_exact_weights_in_the_optimiser(tiny_folder, tmp_path):
    config = replace(CONFIG, bf16=True, steps=6)
    final, log = run(tiny_folder, tmp_path, config)
    assert log[-1][1]["loss"] < log[0][1]["loss"] - 1.0
    model = load_token_model(final)
    assert {p.dtype for p in model.model.parameters()} == {torch.bfloat16}


def test_updates_too_small_for_half_precision_are_not_lost():
    module = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        module.weight.fill_(1.0)
    optimiser = Optimiser(
        module, Schedule(1e-3, 100, kind="constant"), weight_decay=0.0, max_grad_norm=1.0
    )
    for step in range(100):
        for _ in range(3):
            module(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        optimiser.step(step)
    # A step of 1e-3 is below half of bfloat16's spacing at 1 (0.0078); a hundred are 0.1.
    assert module.weight.item() == pytest.approx(0.9, abs=0.004)


def test_gradients_in_half_precision_are_summed_exactly():
    module = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    optimiser = Optimiser(
        module, Schedule(0.0, 1, kind="constant"), weight_decay=0.0, max_grad_norm=1e9
    )
    for size in (256.0, 1.0, 1.0):  # bfloat16 has no 257
        module(torch.full((1, 1), size, dtype=torch.bfloat16)).sum().backward()
    assert optimiser.step(0)["grad_norm"] == 258.0


def test_only_adapters_are_trained_and_they_are_merged_at_the_end(tiny_folder, tmp_path):
    final, log = run(tiny_folder, tmp_path, replace(LORA, steps=8, learning_rate=2e-2))
    assert log[-1][1]["loss"] < log[0][1]["loss"]
    before, after = weights(tiny_folder), weights(final)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert changed
    assert all("language_model" in name and "_proj" in name for name in changed)


def test_separate_adapters_act_like_merged_ones_and_name_their_model(tiny_folder, tmp_path):
    merged, _ = run(tiny_folder, tmp_path / "merged", LORA)
    alone, _ = run(tiny_folder, tmp_path / "alone", replace(LORA, merge_lora=False))
    assert (alone / "adapter_model.safetensors").stat().st_size < 60_000
    assert not (alone / "model.safetensors").exists()
    name = json.loads((alone / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(name) == tiny_folder.resolve()
    one, other = (dict(load_token_model(f).model.state_dict()) for f in (merged, alone))
    assert all((one[key] - other[key]).abs().max() < 1e-6 for key in one)
    assert load_policy(alone, device="cpu").id == str(alone)


def test_adapters_without_their_model_are_reported(tiny_folder, tmp_path):
    alone, _ = run(tiny_folder, tmp_path / "alone", replace(LORA, merge_lora=False))
    path = alone / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(ModelFolderError, match=r"adapters alone.*gone"):
        load_token_model(alone)


def test_adapters_state_is_small_and_a_stopped_run_resumes_bit_for_bit(tiny_folder, tmp_path):
    straight, log = run(tiny_folder, tmp_path / "straight", LORA)
    cut_short(tiny_folder, tmp_path / "cut", LORA, [], 1)
    resumed, rest = run(tiny_folder, tmp_path / "cut", LORA)
    assert rest == log[1:]
    assert same(straight, resumed)
    state = torch.load(tmp_path / "cut" / "state" / "state.pt", weights_only=True)
    assert all("lora_" in name for name in state["values"]["weights"])


@pytest.mark.parametrize("setting", [{"lora_r": -1}, {"lora_alpha": 0}, {"lora_dropout": 1.0}])
def test_invalid_holding_settings_are_rejected(setting):
    with pytest.raises(ValueError, match="lora"):
        SFTConfig(**setting)
