"""On the same batch our loss and its gradient equal those of the installed TRL."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from codedance.envs.types import Message, Tokens, Trajectory
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.token_model import TokenModel
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import Group
from codedance.policies.training.grpo.update import backward, make_rows

from ..players import code, trajectory
from ..tiny import build_tiny, noise

trl = pytest.importorskip("trl")

BUDGET = 64
TURNS = ((0.3, -0.2), (0.0, 0.0), (-0.1, 0.4))
ADVANTAGES = (1.0, -0.7, 0.4)


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
        use_bias_correction_kl=config.use_bias_correction_kl,
    )
    trainer = trl.GRPOTrainer(
        model=model.model,
        reward_funcs=lambda **_: [0.0],
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 3),
        processing_class=model.chat.tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def as_trl_takes_it(
    model: TokenModel, episodes: list[Trajectory], reference: TokenModel | None
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
    old, advantages, known = (torch.zeros(len(rows), right) for _ in range(3))
    pictures: list[Any] = []
    for i, (row, begin) in enumerate(zip(rows, begins, strict=True)):
        own = len(row.ids) - begin
        batch["prompt_ids"][i, left - begin :] = torch.tensor(row.ids[:begin])
        batch["prompt_mask"][i, left - begin :] = 1
        batch["completion_ids"][i, :own] = torch.tensor(row.ids[begin:])
        batch["completion_mask"][i, :own] = 1
        batch["tool_mask"][i, :own] = torch.tensor(row.mask[begin:]).long()
        old[i, :own] = torch.tensor(row.log_probabilities[begin:])
        for place, turn in enumerate(row.turn_of[begin:]):
            advantages[i, place] = ADVANTAGES[i] + TURNS[i][turn] if turn >= 0 else 0.0
        images = [image for message in episodes[i].conversation() for image in message.images]
        pictures += images
        if reference is not None:
            policy = VisionLanguagePolicy(reference, policy_id="start")
            known[i, :own] = torch.tensor(policy.full_logprobs(row.ids, images)[begin:])
    batch |= dict(model.pictures.processor(images=pictures, return_tensors="pt"))
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    return batch | {
        "mm_token_type_ids": (ids == model.chat.image_id).int(),
        "num_images": [2] * len(rows),
        "old_per_token_logps": old,
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
@pytest.mark.parametrize(("beta", "corrected"), [(0.0, True), (0.1, True), (0.1, False)])
@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dapo", "dr_grpo"])
def test_loss_and_gradient_equal_trls(
    loss_type, beta, corrected, tiny_model, episodes, other_weights, tmp_path
):
    config = GRPOConfig(
        loss_type=loss_type,
        beta=beta,
        use_bias_correction_kl=corrected,
        epsilon=0.1,
        epsilon_high=0.2,
        max_completion_length=BUDGET,
    )
    reference = other_weights if beta else None
    rows = make_rows([Group(tuple(episodes), ADVANTAGES, TURNS)], config)
    figures = backward(tiny_model, rows, config, reference=reference)
    ours = gradients(tiny_model)
    trainer = theirs(tiny_model, config, tmp_path)
    batch = as_trl_takes_it(tiny_model, episodes, reference)
    tiny_model.model.train()
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    expected = gradients(tiny_model)
    assert figures.loss == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-6)
    assert 0 < figures.clipped < figures.tokens
    assert (ours - expected).abs().max() < 1e-4 * expected.abs().max()
