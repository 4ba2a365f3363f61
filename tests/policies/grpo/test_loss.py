import math

import pytest
import torch
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loss import (
    clip_covariances,
    clipped_loss,
    is_clipped,
    kl_estimate,
    policy_losses,
    token_weights,
)

BOUNDS = {"epsilon": 0.2, "epsilon_high": 0.28}


def logs(*ratios: float) -> torch.Tensor:
    return torch.tensor([math.log(ratio) for ratio in ratios])


def test_two_tokens_by_hand():
    # Token 1: ratio 1.5, A = 2: min(3.0, 1.28 * 2) = 2.56. Token 2: ratio 0.5, A = -1:
    # min(-0.5, -0.8) = -0.8. Their mean, negated: -(2.56 - 0.8) / 2 = -0.88.
    losses = clipped_loss(logs(1.5, 0.5), torch.zeros(2), torch.tensor([2.0, -1.0]), **BOUNDS)
    assert losses.tolist() == pytest.approx([-2.56, 0.8])
    assert float(losses.mean()) == pytest.approx(-0.88)


def test_clip_keeps_the_gradient_of_a_move_in_the_wrong_direction():
    # A bad token that became likelier, a good one that became rarer: both keep their gradient.
    losses = clipped_loss(logs(1.5, 0.5), torch.zeros(2), torch.tensor([-1.0, 2.0]), **BOUNDS)
    assert losses.tolist() == pytest.approx([1.5, -1.0])


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped"),
    [
        (1.27, 1.0, False),
        (1.29, 1.0, True),
        (0.5, 1.0, False),
        (0.81, -1.0, False),
        (0.79, -1.0, True),
        (1.5, -1.0, False),
    ],
)
def test_gradient_is_zero_exactly_if_a_token_counts_as_clipped(ratio, advantage, clipped):
    new = logs(ratio).requires_grad_()
    old, advantages = torch.zeros(1), torch.tensor([advantage])
    clipped_loss(new, old, advantages, **BOUNDS).sum().backward()
    assert bool(is_clipped(new, old, advantages, **BOUNDS)) is clipped
    expected = 0.0 if clipped else -ratio * advantage
    assert new.grad is not None
    assert new.grad.item() == pytest.approx(expected)


def test_kl_estimate_by_hand():
    # p/q = 2: 2 - ln 2 - 1; equal: 0.
    found = kl_estimate(torch.zeros(2), logs(2.0, 1.0))
    assert found.tolist() == pytest.approx([1.0 - math.log(2.0), 0.0])


def test_kl_estimate_is_the_divergence_on_average():
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    expected = (policy * (policy.log() - reference.log())).sum()
    found = (policy * kl_estimate(policy.log(), reference.log())).sum()
    assert float(found) == pytest.approx(float(expected), abs=1e-6)


def test_weights_of_a_batch_sum_to_one():
    lengths = [3, 0, 7]
    assert math.fsum(
        w * n for w, n in zip(token_weights(lengths, "dapo"), lengths, strict=True)
    ) == pytest.approx(1.0)
    # The empty trajectory removes its third of grpo's weight.
    assert math.fsum(
        w * n for w, n in zip(token_weights(lengths, "grpo"), lengths, strict=True)
    ) == pytest.approx(2 / 3)


def test_unknown_loss_type_is_rejected():
    with pytest.raises(ValueError, match="dapo, bnpo, grpo, dr_grpo"):
        token_weights([1], "ppo")  # type: ignore[arg-type]


def test_a_trajectory_has_one_ratio_with_gspo():
    # Two tokens with ratios 2 and ½·1.21 share √1.21 = 1.1; the third is a trajectory by itself.
    new = logs(2.0, 0.605, 0.9).requires_grad_()
    config = GRPOConfig(importance_sampling_level="sequence", epsilon=0.2, epsilon_high=0.2)
    advantages = torch.tensor([1.0, -0.5, 2.0])
    found = policy_losses(new, torch.zeros(3), advantages, [2, 1], config)
    assert found.values.tolist() == pytest.approx([-1.1, 0.55, -1.8])
    assert not found.is_clipped.any()
    found.values.sum().backward()
    # d exp(log s + log p_t - sg(log p_t)) A_t / d log p_t = s A_t, each token its own.
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([-1.1, 0.55, -1.8])


def test_the_ratio_of_a_trajectory_is_clipped_for_all_of_its_tokens():
    new = logs(2.0, 0.605, 0.9).requires_grad_()
    config = GRPOConfig(importance_sampling_level="sequence", epsilon=0.2, epsilon_high=0.05)
    found = policy_losses(new, torch.zeros(3), torch.ones(3), [2, 1], config)
    assert found.values.tolist() == pytest.approx([-1.05, -1.05, -0.9])
    assert found.is_clipped.tolist() == [True, True, False]
    found.values.sum().backward()
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([0.0, 0.0, -0.9])


def test_cispo_bounds_the_weight_and_keeps_every_gradient():
    # Ratios 6, 0.5 and 2 under a bound of 5: weights 5, 0.5 and 2 of the log-probabilities.
    new = logs(6.0, 0.5, 2.0).requires_grad_()
    config = GRPOConfig(loss_type="cispo", epsilon_high=5.0)
    advantages = torch.tensor([1.0, -1.0, 0.5])
    found = policy_losses(new, torch.zeros(3), advantages, [3], config)
    expected = [-5.0 * math.log(6.0), 0.5 * math.log(0.5), -1.0 * math.log(2.0)]
    assert found.values.tolist() == pytest.approx(expected)
    assert found.is_clipped.tolist() == [True, False, False]
    found.values.sum().backward()
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([-5.0, 0.5, -1.0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss_type": "cispo"}, "epsilon_high is the largest ratio of cispo"),
        ({"importance_sampling_level": "turn"}, "importance_sampling_level is one of token"),
        ({"overlong_buffer": 9, "max_completion_length": 8}, r"overlong_buffer .* \(8\), got 9"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        GRPOConfig(**settings)


DRAWN = torch.tensor([-0.5, -3.5, -2.0, -2.0, -0.5, -3.5])
GIVEN = torch.tensor([2.0, -2.0, 1.0, -1.0, -0.5, 0.5])
"""Means -2 and 0, so the products of centred values are 3, 3, 0, 0, -0.75 and -0.75."""


@pytest.mark.parametrize(
    ("ratio", "bounds", "zeroed"),
    [
        (1.0, (1.0, 5.0), [0, 1]),  # sure and good, or unlikely and bad: both cost entropy
        (1.0, (1.0, 3.0), []),  # beyond the upper bound
        (1.0, (-1.0, -0.5), [4, 5]),
        (1.0, (-0.5, 5.0), [0, 1, 2, 3]),
    ],
)
def test_tokens_by_which_entropy_would_fall_fastest_get_no_gradient(ratio, bounds, zeroed):
    config = GRPOConfig(clip_cov_ratio=ratio, clip_cov_lb=bounds[0], clip_cov_ub=bounds[1])
    found = clip_covariances(DRAWN, GIVEN, config, seed=0)
    expected = [0.0 if n in zeroed else one for n, one in enumerate(GIVEN.tolist())]
    assert found.tolist() == expected


def test_no_more_than_their_share_is_drawn_and_the_draw_depends_on_the_seed():
    """A share of 0.34 of 6 tokens are 2, a very small one still 1; of 4 candidates."""
    counts: dict[float, set[int]] = {}
    places: set[tuple[int, ...]] = set()
    for ratio in (0.34, 1e-6):
        config = GRPOConfig(clip_cov_ratio=ratio, clip_cov_lb=-0.5)
        for seed in range(20):
            found = clip_covariances(DRAWN, GIVEN, config, seed=seed)
            chosen = tuple((found != GIVEN).nonzero().flatten().tolist())
            counts.setdefault(ratio, set()).add(len(chosen))
            places.add(chosen)
            assert torch.equal(found, clip_covariances(DRAWN, GIVEN, config, seed=seed))
    assert counts == {0.34: {2}, 1e-6: {1}}
    assert {n for chosen in places for n in chosen} == {0, 1, 2, 3}


@pytest.mark.parametrize("change", [{"clip_cov_ratio": 1.5}, {"clip_cov_lb": 5.0}])
def test_bounds_between_which_nothing_is_are_refused(change):
    with pytest.raises(ValueError, match=r"grpo\.clip_cov_ratio must be within"):
        GRPOConfig(**change)
