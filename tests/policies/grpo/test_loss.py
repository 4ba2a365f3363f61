import math

import pytest
import torch
from codedance.policies.training.grpo.loss import (
    clipped_loss,
    is_clipped,
    kl_estimate,
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
