"""Invariants of rewards and advantages: bounds, monotonicity, groups of equals."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from codedance.envs.rewards import score_group, turn_returns
from codedance.envs.rewards.presets import PRESETS
from codedance.envs.rewards.terms import (
    group_accuracy,
    group_reward,
    group_turn_advantages,
    score_trajectory,
)
from codedance.envs.types import Ending
from codedance.policies import group_advantages
from codedance.sandbox import Outcome
from hypothesis import given
from hypothesis import strategies as st

from ..toys import answered, call, failed, trajectory

GOOD, CONSTANT, SILENT = (
    call("a", evidence=True),
    call("5", evidence=False),
    call("", evidence=False),
)
BLOCKS = st.sampled_from([GOOD, CONSTANT, SILENT, failed(), failed(Outcome.TIMEOUT)])
SCALES = st.sampled_from(["floor", "group", "none"])
FLOATS = [torch.float32, torch.bfloat16]
PRESET = st.sampled_from(sorted(PRESETS))


@st.composite
def members(draw):
    """Arbitrary scored trajectories."""
    turns = draw(st.lists(BLOCKS, max_size=5))
    accuracy = draw(st.sampled_from([0.0, 1.0]))
    fault = draw(st.sampled_from([None, "two answers"]))
    return trajectory(*turns, answered(fault=fault), accuracy=accuracy)


def advantages(group, reward="bat", dtype=torch.float64, **settings):
    terms = score_group(group, reward=reward)
    rewards = torch.tensor([[group_reward(one) for one in terms]], dtype=dtype)
    return group_advantages(rewards, **settings)[0].tolist()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@given(one=members(), size=st.integers(2, 64), preset=PRESET, scale=SCALES)
def test_a_group_of_equals_is_exactly_zero(dtype, one, size, preset, scale):
    group = [one] * size
    assert set(advantages(group, preset, dtype, scale_rewards=scale)) == {0.0}
    assert {v for turns in group_turn_advantages(group, reward=preset) for v in turns} == {0.0} or (
        len({round(v, 9) for v in turn_returns([t.has_failed for t in one.tool_turns])}) > 1
    )


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", range(2, 65))
def test_equal_rewards_of_any_size_of_group_give_exactly_zero(dtype, size):
    values = [1.2, -0.2, 0.1, 1.0 / 3.0, 0.7 + 0.45, 1e-3, 123.456]
    rewards = torch.tensor([[value] * size for value in values], dtype=dtype)
    for scale in ("floor", "group", "none"):
        assert group_advantages(rewards, scale_rewards=scale).eq(0).all()


@given(group=st.lists(members(), min_size=2, max_size=8), preset=PRESET, data=st.data())
def test_members_lost_to_infrastructure_change_no_statistic(group, preset, data):
    lost = trajectory(failed(), GOOD, accuracy=None, ending=Ending.INFRASTRUCTURE)
    unjudged = replace(lost, ending=Ending.ANSWERED, accuracy=math.nan)
    mixed = list(group)
    for one in (lost, unjudged):
        mixed.insert(data.draw(st.integers(0, len(mixed))), one)
    kept = [n for n, one in enumerate(mixed) if one is not lost and one is not unjudged]
    assert group_accuracy(mixed) == group_accuracy(group)
    terms = score_group(mixed, reward=preset)
    assert [terms[n] for n in kept] == score_group(group, reward=preset)
    turns = group_turn_advantages(mixed, reward=preset)
    assert [turns[n] for n in kept] == group_turn_advantages(group, reward=preset)
    found = advantages(mixed, preset)
    assert [found[n] for n in kept] == pytest.approx(advantages(group, preset), abs=1e-12)
    for n in set(range(len(mixed))) - set(kept):
        assert found[n] == 0.0
        assert set(turns[n]) == {0.0}


@given(one=members(), preset=PRESET, size=st.integers(0, 4))
def test_every_advantage_is_zero_with_fewer_than_two_scored_members(one, preset, size):
    lost = trajectory(GOOD, failed(), accuracy=None, ending=Ending.INFRASTRUCTURE)
    group = [one, *[lost] * (size + 1)]
    assert set(advantages(group, preset)) == {0.0}
    assert {v for turns in group_turn_advantages(group, reward=preset) for v in turns} == {0.0}


@given(group=st.lists(members(), min_size=2, max_size=16))
def test_advantages_are_bounded_by_the_largest_difference_over_the_floor(group):
    terms = score_group(group)
    rewards = [group_reward(one) for one in terms]
    gap = max(rewards) - min(rewards)
    assert all(abs(value) <= gap / 0.5 + 1e-9 for value in advantages(group))
    assert all(abs(v) <= (len(group) - 1) / math.sqrt(len(group)) + 1e-9 for v in advantages(group))
    turns = [v for values in group_turn_advantages(group) for v in values]
    assert all(-0.6 - 1e-12 <= value <= 0.0 for value in turns)


@given(group=st.lists(members(), min_size=2, max_size=8), preset=PRESET, scale=SCALES)
def test_a_higher_reward_never_has_a_lower_advantage(group, preset, scale):
    rewards = [group_reward(one) for one in score_group(group, reward=preset)]
    found = advantages(group, preset, scale_rewards=scale)
    order = sorted(range(len(group)), key=lambda n: rewards[n])
    for low, high in itertools.pairwise(order):
        assert found[low] <= found[high] + 1e-12


@given(turns=st.lists(BLOCKS, max_size=5), accuracy=st.floats(0, 1), preset=PRESET)
def test_a_right_answer_never_earns_less_than_a_wrong_one(turns, accuracy, preset):
    def total(answer):
        one = trajectory(*turns, accuracy=answer)
        return group_reward(score_trajectory(one, group_accuracy=accuracy, reward=preset))

    assert total(1.0) > total(0.0)


@given(turns=st.lists(BLOCKS, min_size=1, max_size=5), accuracy=st.floats(0, 1))
def test_an_additional_failure_never_pays_in_bat(turns, accuracy):
    def total(*blocks):
        one = trajectory(*blocks)
        terms = score_trajectory(one, group_accuracy=accuracy)
        return group_reward(terms) + terms["tool_turn"]

    assert total(*turns, failed()) < total(*turns) + 1e-12


@given(blocks=st.lists(st.sampled_from([CONSTANT, SILENT]), max_size=5), accuracy=st.floats(0, 1))
def test_calls_without_evidence_never_pay_in_bat(blocks, accuracy):
    for answer in (0.0, 1.0):
        with_calls, without = (
            group_reward(score_trajectory(one, group_accuracy=accuracy))
            for one in (trajectory(*blocks, accuracy=answer), trajectory(accuracy=answer))
        )
        assert with_calls <= without


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(0, 8))
def test_a_failure_lowers_the_returns_of_its_turn_and_of_those_before(failures, place):
    place %= len(failures)
    worse = [*failures[:place], True, *failures[place + 1 :]]
    better = [*failures[:place], False, *failures[place + 1 :]]
    low, high = turn_returns(worse), turn_returns(better)
    assert all(a < b for a, b in zip(low[: place + 1], high, strict=False))
    assert low[place + 1 :] == high[place + 1 :]


def test_advantages_by_hand_of_a_group_with_a_call_a_failure_and_a_loss():
    # mu = 2/3: d = (1 + tanh(-2/3))/2 - 0.2 = 0.008609; the right caller gets 1.5 d more.
    group = [
        trajectory(GOOD),
        trajectory(),
        trajectory(failed(), accuracy=0.0),
        trajectory(GOOD, accuracy=None, ending=Ending.INFRASTRUCTURE),
    ]
    d = (1 + math.tanh(4 * (0.5 - 2 / 3))) / 2 - 0.2
    rewards = [1 + 1.5 * d, 1.0, 0.0]
    mean = sum(rewards) / 3
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / 2)
    wanted = [*((r - mean) / std for r in rewards), 0.0]
    assert advantages(group) == pytest.approx(wanted)
    # Returns 0 and -0.5: mean -0.25, population std 0.25, so z = +1 (clipped to 0) and -1.
    assert group_turn_advantages(group) == [[0.0, 0.0], [0.0], [pytest.approx(-0.2), 0.0], [0.0]]
    assert group_turn_advantages(group, reward="bat_paper")[0] == [pytest.approx(0.2), 0.0]


def test_advantages_by_hand_of_a_group_whose_spread_is_below_the_floor():
    # All right: d = -0.182014; one call costs 1.5 d = -0.273, std of (0, 0, -0.273) is 0.158 < 0.5.
    group = [trajectory(), trajectory(), trajectory(GOOD)]
    cost = 1.5 * ((1 + math.tanh(-2)) / 2 - 0.2)
    wanted = [-cost / 3 / 0.5, -cost / 3 / 0.5, 2 * cost / 3 / 0.5]
    assert advantages(group) == pytest.approx(wanted)
    spread = abs(cost) / math.sqrt(3)
    paper = [-cost / 3 / spread, -cost / 3 / spread, 2 * cost / 3 / spread]
    assert advantages(group, "bat_paper", scale_rewards="group") == pytest.approx(paper)
    bare = advantages(group, scale_rewards="none")
    assert bare == pytest.approx([-cost / 3, -cost / 3, 2 * cost / 3])


EVENTS = st.sampled_from([GOOD, failed(), SILENT, CONSTANT])


@given(
    st.lists(
        st.tuples(st.lists(EVENTS, max_size=6), st.sampled_from([0.0, 1.0, None])), max_size=8
    ),
    st.sampled_from(sorted(PRESETS)),
)
def test_every_term_of_every_preset_is_finite_and_bounded(members, preset):
    group = [trajectory(*turns, accuracy=accuracy) for turns, accuracy in members]
    for one, terms in zip(group, score_group(group, reward=preset), strict=True):
        if one.accuracy is None:
            assert set(terms.values()) == {None}
            continue
        assert -0.55 <= terms["tool_sequence"] <= 1.5
        assert -0.1 * len(one.tool_turns) - 1e-9 <= terms["tool_turn"] <= 0.0
        assert math.isfinite(group_reward(terms))
    flat = [value for values in group_turn_advantages(group) for value in values]
    assert all(-0.6 - 1e-9 <= value <= 0.0 for value in flat)
