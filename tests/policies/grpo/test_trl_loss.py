"""On the same batch our loss and its gradient equal those of the installed TRL."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from codedance.envs.types import Message, Tokens, Trajectory
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.prompt_encoder import PromptEncoder
from codedance.policies.models.token_model import TokenModel
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import Group
from codedance.policies.training.grpo.update import UpdateFigures, backward, make_rows
from sampling import sampled

from ..players import code, trajectory
from ..tiny import build_tiny, noise

trl = pytest.importorskip("trl")

BUDGET = 64
CONFIG = GRPOConfig(epsilon=0.1, epsilon_high=0.2, max_completion_length=BUDGET)
TURNS = ((0.3, -0.2), (0.0, 0.0), (-0.1, 0.4))
ADVANTAGES = (1.0, -0.7, 0.4)


@pytest.fixture(autouse=True)
def every_id_can_be_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL scores under the model's own distribution."""
    monkeypatch.setattr(PromptEncoder, "forbidden_ids", ())


@pytest.fixture
def episodes(tiny_model: TokenModel) -> list[Trajectory]:
    """Three episodes with two turns and two images each, sampled with other weights."""
    policy = VisionLanguagePolicy(tiny_model, policy_id="tiny")
    found: list[Trajectory] = []
    for seed, (first, second) in enumerate([("ab", "xyz"), ("abcd", "x"), ("a", "wxyz")]):
        one = trajectory(blocks=["look"])
        shown = Message("user", ("seen:", noise(seed + 5)))
        turns = (replace(one.turns[0], text=code(first), reply=shown), one.turns[1])
        one = replace(one, turns=turns)
        chat = tiny_model.chat
        ids = chat.open_prompt(one.opening)
        turn_of = [-1] * len(ids)
        for turn, text in enumerate((first, second)):
            own = [*chat.encode_text(text), chat.end_id]
            asked = chat.after_reply([shown]) if turn == 0 else []
            ids += own + asked
            turn_of += [turn] * len(own) + [-1] * len(asked)
        images = [one.opening[0].images[0], shown.images[0]]
        scores = policy.full_logprobs(ids, images)
        generator = torch.Generator().manual_seed(seed)
        noisy = (torch.tensor(scores) + 0.3 * torch.randn(len(ids), generator=generator)).tolist()
        drawn = tuple(s if t >= 0 else 0.0 for s, t in zip(noisy, turn_of, strict=True))
        tokens = Tokens(tuple(ids), drawn, tuple(turn_of), images=2)
        found.append(replace(one, tokens=tokens))
    return found


def theirs(model: TokenModel, config: GRPOConfig, folder: Path) -> Any:
    """A real trainer of TRL on the same weights."""
    from datasets import Dataset

    arguments = trl.GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=3,
        num_generations=3,
        report_to=[],
        use_cpu=True,
        bf16=False,
        max_completion_length=BUDGET,
        loss_type=config.loss_type,
        epsilon=config.epsilon,
        epsilon_high=config.epsilon_high,
        beta=config.beta,
        temperature=config.temperature,
        importance_sampling_level=config.importance_sampling_level,
        use_bias_correction_kl=config.use_bias_correction_kl,
        vllm_importance_sampling_correction=config.vllm_importance_sampling_correction,
        vllm_importance_sampling_mode=config.vllm_importance_sampling_mode,
        vllm_importance_sampling_clip_max=config.vllm_importance_sampling_clip_max,
        vllm_importance_sampling_clip_min=config.vllm_importance_sampling_clip_min,
        off_policy_mask_threshold=config.off_policy_mask_threshold,
    )
    trainer = trl.GRPOTrainer(
        model=model.model,
        reward_funcs=lambda **_: [0.0],
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 3),
        processing_class=model.chat.tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.use_vllm = True  # for the loss alone: nothing is generated
    return trainer


def old_of(episodes: list[Trajectory]) -> list[torch.Tensor]:
    """Scores before the first update: neither the engine's nor those of the current weights."""
    generator = torch.Generator().manual_seed(7)
    found: list[torch.Tensor] = []
    for one in episodes:
        assert one.tokens is not None
        drawn = torch.tensor(one.tokens.log_probabilities)[torch.tensor(one.tokens.mask)]
        found.append(drawn + 0.3 * torch.randn(len(drawn), generator=generator))
    return found


def too_sure(one: Trajectory) -> Trajectory:
    """Return an episode whose engine thought all tokens more likely by half a nat."""
    assert one.tokens is not None
    drawn = tuple(score + 0.5 if score else 0.0 for score in one.tokens.log_probabilities)
    return replace(one, tokens=replace(one.tokens, log_probabilities=drawn))


def ratios_of_trl(config: GRPOConfig, difference: torch.Tensor) -> torch.Tensor:
    """The importance ratios of TRL 1.16, which it computes where it generates.

    Args:
        config: Settings.
        difference: Trainer's less engine's log-probabilities, 0 elsewhere, ``(rows, length)``.
    """
    mode = config.vllm_importance_sampling_mode
    low, high = (
        config.vllm_importance_sampling_clip_min,
        config.vllm_importance_sampling_clip_max,
    )
    if mode.startswith("sequence"):
        difference = difference.sum(dim=-1, keepdim=True)
    ratio = difference.exp()
    if mode.endswith("truncate"):
        return torch.clamp(ratio, min=low, max=high)
    is_out = (ratio < (low or -torch.inf)) | (ratio > (high or torch.inf))
    return ratio.masked_fill(is_out, 0.0)


def as_trl_takes_it(
    model: TokenModel,
    episodes: list[Trajectory],
    reference: TokenModel | None,
    config: GRPOConfig,
    turns: tuple[tuple[float, ...], ...],
) -> dict[str, Any]:
    """Return prompts padded on the left, completions padded on the right, tool replies masked."""
    rows = [one.tokens for one in episodes if one.tokens is not None]
    begins = [row.mask.index(True) for row in rows]
    left, right = max(begins), max(len(row.ids) - b for row, b in zip(rows, begins, strict=True))
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask")
    batch: dict[str, Any] = {
        name: torch.zeros(len(rows), left if "prompt" in name else right, dtype=torch.long)
        for name in names
    }
    drawn, old, advantages, known = (torch.zeros(len(rows), right) for _ in range(4))
    pictures: list[Any] = []
    for i, (row, begin) in enumerate(zip(rows, begins, strict=True)):
        own = len(row.ids) - begin
        batch["prompt_ids"][i, left - begin :] = torch.tensor(row.ids[:begin])
        batch["prompt_mask"][i, left - begin :] = 1
        batch["completion_ids"][i, :own] = torch.tensor(row.ids[begin:])
        batch["completion_mask"][i, :own] = 1
        batch["tool_mask"][i, :own] = torch.tensor(row.mask[begin:]).long()
        drawn[i, :own] = torch.tensor(row.log_probabilities[begin:])
        old[i, :own][torch.tensor(row.mask[begin:])] = old_of(episodes)[i]
        for place, turn in enumerate(row.turn_of[begin:]):
            advantages[i, place] = ADVANTAGES[i] + turns[i][turn] if turn >= 0 else 0.0
        images = [image for message in episodes[i].conversation() for image in message.images]
        pictures += images
        if reference is not None:
            policy = VisionLanguagePolicy(reference, policy_id="start")
            scores = policy.full_logprobs(row.ids, images, temperature=config.temperature)
            known[i, :own] = torch.tensor(scores[begin:])
    batch |= dict(model.pictures.processor(images=pictures, return_tensors="pt"))
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    return batch | {
        "mm_token_type_ids": (ids == model.chat.image_id).int(),
        "num_images": [2] * len(rows),
        "old_per_token_logps": old,
        "sampling_per_token_logps": drawn,
        "importance_sampling_ratio": ratios_of_trl(config, old - drawn),
        "advantages": advantages,
        "ref_per_token_logps": known,
        "num_items_in_batch": torch.tensor(float(sum(sum(row.mask) for row in rows))),
    }


def gradients(model: TokenModel) -> torch.Tensor:
    parts = [
        (torch.zeros_like(p) if p.grad is None else p.grad).flatten().clone()
        for p in model.model.parameters()
    ]
    model.model.zero_grad()
    return torch.cat(parts)


@pytest.fixture
def other_weights(tmp_path: Path) -> TokenModel:
    """Return the reference: another random model."""
    return load_token_model(build_tiny(tmp_path / "other", seed=1), device="cpu")


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("beta", "corrected"), sampled([(0.0, True), (0.1, True), (0.1, False)], 2)
)
@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dapo", "dr_grpo", "cispo"])
def test_loss_and_gradient_equal_trls(
    loss_type, beta, corrected, tiny_model, episodes, other_weights, tmp_path
):
    high = 1.2 if loss_type == "cispo" else CONFIG.epsilon_high
    config = replace(
        CONFIG,
        loss_type=loss_type,
        epsilon_high=high,
        beta=beta,
        use_bias_correction_kl=corrected,
    )
    figures = compare(config, tiny_model, episodes, other_weights, tmp_path)
    assert 0 < figures.clipped < figures.tokens


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_scores_at_another_temperature_equal_trls(tiny_model, episodes, other_weights, tmp_path):
    config = replace(CONFIG, beta=0.1, temperature=0.7)
    compare(config, tiny_model, episodes, other_weights, tmp_path)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("mode", "low", "high", "threshold"),
    [
        ("token_truncate", None, 1.1, None),
        ("token_truncate", 0.9, None, 0.05),
        ("token_mask", 0.8, 1.2, None),
        ("token_mask", 0.9, None, None),
        ("sequence_truncate", None, 3.0, None),
        ("sequence_mask", None, 1.2, None),
        ("sequence_mask", 0.5, 3.0, 0.01),
    ],
)
def test_corrections_equal_trls(
    mode, low, high, threshold, tiny_model, episodes, other_weights, tmp_path
):
    config = replace(
        CONFIG,
        beta=0.1,
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=low,
        vllm_importance_sampling_clip_max=high,
        off_policy_mask_threshold=threshold,
    )
    episodes[1] = too_sure(episodes[1])
    figures = compare(config, tiny_model, episodes, other_weights, tmp_path)
    assert 0 < figures.mismatch[0].limited < figures.tokens
    assert (figures.masked > 0) == (threshold is not None)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:When using `importance_sampling_level:UserWarning")
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "cispo"])
def test_ratios_of_whole_trajectories_equal_trls(
    loss_type, tiny_model, episodes, other_weights, tmp_path
):
    """TRL gives all tokens of a trajectory one gradient, so they have one weight here."""
    high = 1.0 if loss_type == "cispo" else 0.01
    config = replace(
        CONFIG,
        loss_type=loss_type,
        importance_sampling_level="sequence",
        epsilon=0.01,
        epsilon_high=high,
        vllm_importance_sampling_correction=False,
    )
    alike = ((-2.0, -2.0), (2.0, 2.0), (0.0, 0.0))
    figures = compare(config, tiny_model, episodes, other_weights, tmp_path, turns=alike)
    assert 0 < figures.clipped < figures.tokens


def compare(
    config: GRPOConfig,
    model: TokenModel,
    episodes: list[Trajectory],
    other_weights: TokenModel,
    folder: Path,
    *,
    turns: tuple[tuple[float, ...], ...] = TURNS,
) -> UpdateFigures:
    """Compare loss and gradient with those of the installed TRL; return our figures."""
    reference = other_weights if config.beta else None
    rows = make_rows([Group(tuple(episodes), ADVANTAGES, turns)], config)
    old = dict(enumerate(old_of(episodes)))
    figures = backward(model, rows, config, reference=reference, old=old)
    ours = gradients(model)
    trainer = theirs(model, config, folder)
    batch = as_trl_takes_it(model, episodes, reference, config, turns)
    model.model.train()
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    expected = gradients(model)
    assert figures.loss == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-6)
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()
    return figures
