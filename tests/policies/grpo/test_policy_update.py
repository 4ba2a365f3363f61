import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from codedance.envs.types import Trajectory, WeightSpan
from codedance.policies.models.model_folder import load_token_model
from codedance.policies.models.token_model import PicturedIds, TokenModel
from codedance.policies.training.grpo.asynchronous.weight_age import steps_behind
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import Group
from codedance.policies.training.grpo.mismatch import UNKNOWN, mismatch_metrics
from codedance.policies.training.grpo.update import backward, make_rows

from ..players import trajectory

CONFIG = GRPOConfig()
MASKED = {"vllm_importance_sampling_mode": "token_mask"}


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


def test_covariances_are_those_of_the_whole_step_and_its_number_decides_the_draw(sampled):
    all_rows = replace(CONFIG, beta=0.1)  # a KL term keeps those without advantages
    config = replace(all_rows, clip_cov_ratio=1.0, clip_cov_lb=0.0, clip_cov_ub=1e9)
    siblings = group(sampled, (1.0, -1.0, 0.0))
    drawn = torch.cat([row.drawn for row in make_rows([siblings], all_rows)])
    given = torch.tensor([1.0] * 2 + [-1.0] * 3 + [0.0] * 4)
    kept = (drawn - drawn.mean()) * (given - given.mean()) <= 0.0
    found = torch.cat([row.advantages for row in make_rows([siblings], config)])
    assert found.tolist() == (given * kept).tolist()
    assert not kept[:5].all()
    one = replace(config, clip_cov_ratio=1e-6)
    choices = {
        tuple(torch.cat([r.advantages for r in make_rows([siblings], one, step=step)]).tolist())
        for step in range(8)
    }
    assert len(choices) > 1


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
    assert figures.mismatch[0].largest < 1e-5
    assert (figures.tokens, figures.clipped) == (9, 0)
    loss = torch.zeros(())
    for one, advantage in zip(sampled, advantages, strict=True):
        assert one.tokens is not None
        batch = tiny_model.pad([PicturedIds(one.tokens.ids, one.opening[0].images)])
        own = torch.tensor([one.tokens.mask])
        scores = tiny_model.log_probabilities(batch, own, temperature=1.0)
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
    (row,) = make_rows([group(sampled[:1], (1.0,))], CONFIG)
    # Half the probability before the first update: the ratio is 2, above 1.28.
    old = {0: row.drawn - math.log(2.0)}
    config = replace(CONFIG, vllm_importance_sampling_correction=False)
    figures = backward(tiny_model, [row], config, reference=None, old=old)
    assert figures.clipped == figures.tokens == 2
    assert figures.loss == pytest.approx(-1.28)
    assert gradient(tiny_model).eq(0).all()


def shifted(one: Trajectory, by: float) -> Trajectory:
    """Return a trajectory whose engine gave each own token another log-probability."""
    assert one.tokens is not None
    logs = tuple(
        score + by if turn >= 0 else 0.0
        for score, turn in zip(one.tokens.log_probabilities, one.tokens.turn_of, strict=True)
    )
    return replace(one, tokens=replace(one.tokens, log_probabilities=logs))


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({}, 2.0),
        ({"vllm_importance_sampling_correction": False}, 1.0),
        ({"vllm_importance_sampling_clip_max": 1.5}, 1.5),
        ({"vllm_importance_sampling_clip_max": 1.5, **MASKED}, 0.0),
        ({"vllm_importance_sampling_mode": "sequence_truncate"}, 3.0),
    ],
)
def test_tokens_weigh_as_much_more_as_the_engine_thought_them_less_likely(
    tiny_model, sampled, change, factor
):
    rows = make_rows([group(sampled[:1], (1.0,))], CONFIG)
    backward(tiny_model, rows, CONFIG, reference=None)
    plain = gradient(tiny_model)
    config = replace(CONFIG, **change)
    doubted = make_rows([group([shifted(sampled[0], -math.log(2.0))], (1.0,))], config)
    figures = backward(tiny_model, doubted, config, reference=None)
    torch.testing.assert_close(gradient(tiny_model), factor * plain, atol=1e-5, rtol=1e-4)
    assert figures.loss == pytest.approx(-factor, abs=1e-4)
    assert figures.mismatch[0].largest == pytest.approx(math.log(2.0), abs=1e-5)


def test_engines_that_were_too_sure_of_bad_tokens_are_masked_by_trajectory(tiny_model, sampled):
    config = replace(CONFIG, off_policy_mask_threshold=0.5)
    far = [shifted(one, by) for one, by in zip(sampled, (0.6, 0.6, 0.4), strict=True)]
    rows = make_rows([group(far, (-1.0, 1.0, -1.0))], config)
    figures = backward(tiny_model, rows, config, reference=None)
    assert figures.masked == 2  # those of the first: bad, and 0.6 nats a token too sure
    expected = -(3 * math.exp(-0.6) - 4 * math.exp(-0.4)) / 9
    assert figures.loss == pytest.approx(expected, abs=1e-5)


def test_figures_are_kept_by_how_old_the_weights_were(tiny_model, sampled):
    tokens = sampled[2].tokens
    begin = len(tokens.ids) - 4
    spans = (WeightSpan("step-4", begin, begin + 3), WeightSpan("step-5", begin + 3, begin + 4))
    late = replace(sampled[2], tokens=replace(tokens, weight_versions=spans))
    unnamed = shifted(sampled[0], -0.1)
    rows = make_rows([group([late, unnamed], (1.0, -1.0))], CONFIG, behind=partial(steps_behind, 5))
    figures = backward(tiny_model, rows, CONFIG, reference=None)
    assert {age: one.tokens for age, one in figures.mismatch.items()} == {0: 1, 1: 3, UNKNOWN: 2}
    metrics = mismatch_metrics(figures.mismatch)
    assert metrics["sampling_logp_difference/mean"] == pytest.approx(0.2 / 6, abs=1e-5)
    assert metrics["sampling_logp_difference/behind_1/max"] < 1e-5
    assert metrics["sampled_share/behind_1"] == 0.5


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
