from dataclasses import replace

import pytest
import torch
from codedance.envs.types import Tokens, Trajectory
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.token_model import PicturedIds, TokenModel
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import Group
from codedance.policies.training.grpo.update import backward, make_rows

from ..players import trajectory

CONFIG = GRPOConfig()


@pytest.fixture
def sampled(tiny_model: TokenModel) -> list[Trajectory]:
    """Three trajectories with exact tokens, of which 2, 3 and 4 are the policy's, in one turn."""
    policy = VisionLanguagePolicy(tiny_model, policy_id="tiny")
    found: list[Trajectory] = []
    for own in (2, 3, 4):
        one = trajectory()
        prompt = tiny_model.chat.open_prompt(one.opening)
        ids = (*prompt, *tiny_model.chat.encode_text("abcd"[:own]))
        scores = policy.full_logprobs(ids, one.opening[0].images)
        turn_of = (-1,) * len(prompt) + (0,) * own
        logs = tuple(s if t >= 0 else 0.0 for s, t in zip(scores, turn_of, strict=True))
        found.append(replace(one, tokens=Tokens(ids, logs, turn_of, images=1)))
    return found


def group(siblings: list[Trajectory], advantages: tuple[float, ...], turn: float = 0.0) -> Group:
    return Group(tuple(siblings), advantages, tuple((turn,) for _ in siblings))


def gradient(model: TokenModel) -> torch.Tensor:
    parts = [p.grad.flatten() for p in model.model.parameters() if p.grad is not None]
    model.model.zero_grad()
    return torch.cat(parts)


def test_tokens_have_equal_weight_and_only_the_policys_own_count(sampled):
    rows = make_rows([group(sampled, (1.0, -1.0, 0.5))], CONFIG)
    assert [len(row.advantages) for row in rows] == [2, 3, 4]
    assert [row.weight for row in rows] == [1 / 9] * 3
    assert [row.advantages[0].item() for row in rows] == [1.0, -1.0, 0.5]


def test_trajectories_have_equal_weight_in_the_grpo_loss(sampled):
    rows = make_rows([group(sampled, (1.0, -1.0, 0.5))], replace(CONFIG, loss_type="grpo"))
    assert [row.weight for row in rows] == pytest.approx([1 / 6, 1 / 9, 1 / 12])


def test_turn_advantage_is_added_to_its_tokens(sampled):
    (row,) = make_rows([group(sampled[:1], (1.0,), turn=-0.25)], CONFIG)
    assert row.advantages.tolist() == [0.75, 0.75]


def test_flat_trajectories_count_in_the_weights_but_add_no_row(sampled):
    (row,) = make_rows([group(sampled, (0.0, -1.0, 0.0))], CONFIG)
    assert row.weight == 1 / 9
    assert len(row.advantages) == 3


def test_infrastructure_failures_add_no_row_and_no_weight(sampled):
    lost = replace(trajectory(accuracy=None), tokens=sampled[2].tokens)
    rows = make_rows([group([*sampled[:2], lost], (1.0, -1.0, 0.0))], CONFIG)
    assert [row.weight for row in rows] == [1 / 5] * 2


def test_first_update_is_the_plain_policy_gradient(tiny_model, sampled):
    # With the sampling weights every ratio is 1, so the gradient is that of -mean(A log p).
    advantages = (1.0, -1.0, 0.5)
    rows = make_rows([group(sampled, advantages)], CONFIG)
    figures = backward(tiny_model, rows, CONFIG, reference=None)
    found = gradient(tiny_model)
    assert figures.loss == pytest.approx(-(2 * 1.0 - 3 * 1.0 + 4 * 0.5) / 9, abs=1e-5)
    assert figures.drift < 1e-5
    assert (figures.tokens, figures.clipped) == (9, 0)
    loss = torch.zeros(())
    for one, advantage in zip(sampled, advantages, strict=True):
        assert one.tokens is not None
        batch = tiny_model.pad([PicturedIds(one.tokens.ids, one.opening[0].images)])
        scores = tiny_model.log_probabilities(batch, torch.tensor([one.tokens.mask]))
        loss = loss - advantage * scores.sum() / 9
    loss.backward()
    expected = gradient(tiny_model)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_micro_batches_add_up_to_the_whole_batch(tiny_model, sampled):
    rows = make_rows([group(sampled, (1.0, -1.0, 0.5))], CONFIG)
    gradients: list[torch.Tensor] = []
    for budget in (4096, 1):
        backward(
            tiny_model,
            rows,
            replace(CONFIG, max_tokens_per_micro_batch=budget),
            reference=None,
        )
        gradients.append(gradient(tiny_model))
    whole, parts = gradients
    assert (whole - parts).abs().max() < 1e-5 * whole.abs().max()


def test_ratio_beyond_the_bound_has_no_gradient(tiny_model, sampled):
    tokens = sampled[0].tokens
    # Sampled at half the probability: the ratio is 2, above 1.28, and the advantage is positive.
    older = tuple(
        s - 0.6931 if t >= 0 else 0.0
        for s, t in zip(tokens.log_probabilities, tokens.turn_of, strict=True)
    )
    stale = replace(sampled[0], tokens=replace(tokens, log_probabilities=older))
    rows = make_rows([group([stale], (1.0,))], CONFIG)
    figures = backward(tiny_model, rows, CONFIG, reference=None)
    assert figures.clipped == figures.tokens == 2
    assert figures.loss == pytest.approx(-1.28)
    assert gradient(tiny_model).eq(0).all()


def test_divergence_is_zero_at_the_initial_model_and_then_restrains_the_update(
    tiny_model, tiny_folder, sampled
):
    config = replace(CONFIG, beta=0.1)
    reference = load_token_model(tiny_folder, device="cpu")
    rows = make_rows([group(sampled, (0.0, 0.0, 0.0))], config)
    assert len(rows) == 3
    figures = backward(tiny_model, rows, config, reference=reference)
    assert figures.kl == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        tiny_model.model.lm_head.weight.mul_(1.5)
    tiny_model.model.zero_grad()
    away = backward(tiny_model, rows, config, reference=reference)
    assert away.kl > 0.01
    assert gradient(tiny_model).abs().max() > 0
