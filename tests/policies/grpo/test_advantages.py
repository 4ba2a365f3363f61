import math

import pytest
import torch
from codedance.policies import group_advantages
from codedance.policies.training.grpo.advantages import token_advantages

NAN = math.nan


def test_floor_divides_a_small_spread_by_one_half():
    # Mean 0.1, std of (0.2, 0.0) is 0.1414 < 0.5, so ±0.1 / 0.5.
    found = group_advantages(torch.tensor([[0.2, 0.0]]))
    assert found.tolist() == [[pytest.approx(0.2), pytest.approx(-0.2)]]


def test_wide_spread_is_divided_by_its_own_std():
    # Mean 1, deviations -1, 0, 1: std with n - 1 is 1.
    assert group_advantages(torch.tensor([[0.0, 1.0, 2.0]])).tolist() == [[-1.0, 0.0, 1.0]]


def test_scale_group_matches_the_paper_and_none_matches_dr_grpo():
    rewards = torch.tensor([[0.2, 0.0]])
    by_group = group_advantages(rewards, scale_rewards="group")
    assert by_group.tolist() == [[pytest.approx(0.5**0.5), pytest.approx(-(0.5**0.5))]]
    plain = group_advantages(rewards, scale_rewards="none")
    assert plain.tolist() == [[pytest.approx(0.1), pytest.approx(-0.1)]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("scale", ["floor", "group", "none"])
@pytest.mark.parametrize("value", [1.2, -0.2, 1e6, 0.1])
def test_group_of_equals_gets_exactly_zero(dtype: torch.dtype, scale, value: float):
    value = min(value, 6e4) if dtype is torch.float16 else value
    for size in (2, 3, 8, 64):
        rewards = torch.full((2, size), value, dtype=dtype)
        found = group_advantages(rewards, scale_rewards=scale)
        assert found.dtype is dtype
        assert found.eq(0).all()


def test_rounding_error_has_no_advantage():
    # The paper's code gives 8 rewards of 1.2, one off by rounding, an advantage of 0.1 and more.
    rewards = torch.tensor([[1.2] * 7 + [1.2000001]])
    assert group_advantages(rewards, scale_rewards="group").eq(0).all()


def test_lost_trajectory_is_excluded_from_mean_and_std():
    with_lost = group_advantages(torch.tensor([[0.0, NAN, 1.0, 2.0]]))
    assert with_lost.tolist() == [[-1.0, 0.0, 0.0, 1.0]]


def test_fewer_than_two_scored_trajectories_have_advantage_zero():
    rewards = torch.tensor([[1.0, NAN, NAN], [NAN, NAN, NAN]])
    assert group_advantages(rewards).eq(0).all()


def test_groups_do_not_mix():
    one = group_advantages(torch.tensor([[0.0, 1.0]]))
    two = group_advantages(torch.tensor([[0.0, 1.0], [100.0, 500.0]]))
    assert torch.equal(one[0], two[0])


def test_advantages_of_a_group_sum_to_zero():
    rewards = torch.randn(16, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert group_advantages(rewards).sum(dim=1).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (torch.ones(3, 1), "raise grpo.num_generations"),
        (torch.ones(3), r"shape \(groups, samples\)"),
        (torch.ones(3, 2, dtype=torch.long), "float rewards"),
        (torch.tensor([[math.inf, 0.0]]), "infinite"),
    ],
)
def test_rewards_that_cannot_be_compared_are_rejected(rewards: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards)


def test_unknown_scale_is_rejected():
    with pytest.raises(ValueError, match="floor, group, none"):
        group_advantages(torch.ones(1, 2), scale_rewards="batch")  # type: ignore[arg-type]


def test_a_turns_advantage_is_on_the_tokens_of_that_turn():
    found = token_advantages(1.0, [-0.25, 0.0], turn_of=[-1, 0, 0, -1, 1, -1])
    assert found.tolist() == [0.0, 0.75, 0.75, 0.0, 1.0, 0.0]


def test_token_of_an_unknown_turn_is_rejected():
    with pytest.raises(ValueError, match="tokens of turn 1"):
        token_advantages(1.0, [0.0], turn_of=[0, 1])
