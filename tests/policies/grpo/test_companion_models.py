"""The reference of the KL term is the initial model, exactly, and adapters need no copy of it."""

import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from codedance.envs.types import Message
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.token_model import PicturedIds, TokenModel
from codedance.policies.training.grpo import loop
from codedance.policies.training.grpo.companion_models import InitialModel, make_reference
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.trained_model import TrainedModel
from codedance.policies.training.training_setup import TrainingSetup
from codedance.sandbox.types import Sandbox
from torch import Tensor
from transformers import AutoModelForImageTextToText, Qwen2_5_VLForConditionalGeneration

from ..players import task
from ..tiny import noise

TASKS = [task(index) for index in range(7)]
CONFIG = GRPOConfig(
    steps=3,
    tasks_per_step=2,
    num_generations=4,
    learning_rate=5e-3,
    max_new_tokens=8,
    max_redraws=0,
    reward="outcome",
    scale_rewards="group",
    beta=0.05,
)
LORA = replace(CONFIG, lora_r=4, lora_alpha=8, lora_dropout=0.1)
SETUPS = [
    TrainingSetup(),
    TrainingSetup(bf16=True),
    TrainingSetup(lora_r=4, lora_dropout=0.5),
    TrainingSetup(lora_r=4, lora_dropout=0.5, bf16=True, gradient_checkpointing=True),
]


def scores(scorer: Any, model: TokenModel) -> Tensor:
    image = noise(0, 56, 56)
    ids = model.chat.open_prompt([Message("user", (image, "How many?"))])
    batch = model.pad([PicturedIds(ids, [image])])
    with torch.no_grad():
        return scorer(batch, torch.ones_like(batch.ids, dtype=torch.bool))


def shift(trained: TrainedModel) -> None:
    """Change every trained weight."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in trained.model.model.parameters():
            if one.requires_grad:
                one += 0.1 * torch.randn(one.shape, generator=draw).to(one)


@pytest.mark.parametrize("setup", SETUPS)
def test_reference_scores_are_those_of_the_initial_model_to_the_bit(
    tiny_folder: Path, setup: TrainingSetup
) -> None:
    trained = TrainedModel(tiny_folder, setup, seed=0)
    reference = make_reference(trained, tiny_folder, setup)
    trained.begin_step(0)
    initial = load_token_model(tiny_folder)
    if setup.bf16:
        initial.model.to(torch.bfloat16)
    expected = scores(initial.log_probabilities, initial)
    shift(trained)
    assert torch.equal(scores(reference.log_probabilities, trained.model), expected)
    assert not torch.allclose(scores(trained.score, trained.model), expected, atol=1e-2)


def test_switching_off_leaves_the_training_as_it_was(tiny_folder: Path) -> None:
    setup = TrainingSetup(lora_r=4, lora_dropout=0.5)
    trained = TrainedModel(tiny_folder, setup, seed=0)
    network = trained.model.model
    trained.begin_step(0)
    learns = [one.requires_grad for one in network.parameters()]
    before = torch.get_rng_state()
    scores(make_reference(trained, tiny_folder, setup).log_probabilities, trained.model)
    assert torch.equal(torch.get_rng_state(), before)
    assert [one.requires_grad for one in network.parameters()] == learns
    assert network.training
    with pytest.raises(RuntimeError, match="stopped"), trained.without_adapters():
        raise RuntimeError("stopped")
    assert [one.requires_grad for one in network.parameters()] == learns
    assert network.training


def test_adapters_of_the_initial_model_belong_to_the_reference(
    tiny_folder: Path, tmp_path: Path
) -> None:
    setup = TrainingSetup(lora_r=4, merge_lora=False)
    first = TrainedModel(tiny_folder, setup, seed=1)
    shift(first)
    first.save(tmp_path)
    start = load_token_model(tmp_path)
    plain = load_token_model(tiny_folder)
    expected = scores(start.log_probabilities, start)
    assert not torch.allclose(expected, scores(plain.log_probabilities, plain), atol=1e-3)
    trained = TrainedModel(tmp_path, setup, seed=2)
    reference = make_reference(trained, tmp_path, setup)
    shift(trained)
    assert torch.equal(scores(reference.log_probabilities, trained.model), expected)
    # Saved alone they name that folder, not its base model, as theirs.
    both = scores(trained.score, trained.model)
    trained.save(tmp_path / "second")
    again = load_token_model(tmp_path / "second")
    torch.testing.assert_close(scores(again.log_probabilities, again), both, atol=1e-5, rtol=1e-4)


def test_adapters_are_needed_to_switch_them_off(tiny_folder: Path) -> None:
    trained = TrainedModel(tiny_folder, TrainingSetup(), seed=0)
    with pytest.raises(ValueError, match="lora_r"), trained.without_adapters():
        pass


def trained_by(
    start: Path, folder: Path, sandbox: Sandbox, config: GRPOConfig
) -> tuple[Mapping[str, Tensor], list[dict[str, float]]]:
    """Train; return the final weights and the metrics of each step."""
    log: list[dict[str, float]] = []
    final = loop.train_grpo(
        start,
        TASKS,
        config,
        sandbox=sandbox,
        folder=folder,
        on_step=lambda _, metrics: log.append(dict(metrics)),
    )
    return AutoModelForImageTextToText.from_pretrained(final).state_dict(), log


@pytest.mark.slow
@pytest.mark.usefixtures("letters")
def test_training_is_that_with_a_second_model(
    tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, log = trained_by(tiny_folder, tmp_path / "off", sandbox, LORA)

    def second(trained: TrainedModel, source: str | Path, setup: TrainingSetup) -> InitialModel:
        return InitialModel(source, setup, is_sharded=trained.is_sharded)

    monkeypatch.setattr(loop, "make_reference", second)
    others, other = trained_by(tiny_folder, tmp_path / "second", sandbox, LORA)
    assert log == [pytest.approx(one, abs=1e-6) for one in other]
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) < 1e-6
    assert log[-1]["kl"] > 1e-5  # it has moved away


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize("config", [CONFIG, LORA])
@pytest.mark.parametrize("bf16", [False, True])
def test_divergence_of_the_first_step_is_zero(
    tiny_folder: Path, tmp_path: Path, sandbox: Sandbox, config: GRPOConfig, bf16: bool
) -> None:
    """Not even the rounding of another precision: the folder's weights are float32."""
    first = replace(config, bf16=bf16, steps=1, lora_dropout=0.0, gradient_checkpointing=True)
    _, log = trained_by(tiny_folder, tmp_path, sandbox, first)
    assert log[0]["rows"] > 0
    assert log[0]["kl"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "count"), [(CONFIG, 2), (LORA, 1), (replace(LORA, beta=0.0), 1)]
)
def test_adapters_need_no_second_model(
    tiny_folder: Path, sandbox: Sandbox, config: GRPOConfig, count: int
) -> None:
    gc.collect()
    before = networks()
    run = loop.GRPORun(tiny_folder, TASKS, config, sandbox=sandbox)
    assert networks() - before == count
    run.close()


def networks() -> int:
    """Count the models in memory."""
    found = gc.get_objects()
    return sum(type(one) is Qwen2_5_VLForConditionalGeneration for one in found)
