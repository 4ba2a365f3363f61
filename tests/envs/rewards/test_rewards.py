import math
from dataclasses import replace

import pytest
from codedance.envs import register_reward_term
from codedance.envs.rewards import difficulty_factor, score_group, turn_returns
from codedance.envs.rewards.presets import PRESETS, reward_preset
from codedance.envs.rewards.registry import unregister_reward_term
from codedance.envs.rewards.terms import (
    TERMS,
    group_accuracy,
    group_reward,
    group_turn_advantages,
    needs_evidence,
    score_trajectory,
)
from codedance.envs.types import Ending
from codedance.sandbox import Outcome
from hypothesis import given
from hypothesis import strategies as st

from ..toys import answered, call, failed, trajectory

D = {0.0: 0.78201, 0.25: 0.68080, 0.5: 0.3, 0.75: -0.08080, 1.0: -0.18201}
CALL = call("a", evidence=True)


def tool_sequence(one, accuracy, reward="bat"):
    return score_trajectory(one, group_accuracy=accuracy, reward=reward)["tool_sequence"]


@pytest.mark.parametrize(("accuracy", "factor"), D.items())
def test_the_difficulty_factor_equals_the_papers(accuracy, factor):
    assert difficulty_factor(accuracy) == pytest.approx(factor, abs=1e-5)


def test_the_difficulty_factor_is_exact_at_one_half_and_crosses_zero_near_two_thirds():
    assert difficulty_factor(0.5) == 0.3
    assert difficulty_factor(0.6732) > 0 > difficulty_factor(0.6734)
    assert difficulty_factor(0.25, steepness=0.0, offset=0.0) == 0.5


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_difficulty_factor_falls_with_accuracy_within_its_bounds(low, high):
    low, high = sorted((low, high))
    assert 0.7821 > difficulty_factor(low) >= difficulty_factor(high) > -0.1821


@pytest.mark.parametrize("accuracy", [-0.1, 1.1, math.nan])
def test_an_accuracy_out_of_range_is_rejected(accuracy):
    with pytest.raises(ValueError, match="between 0 and 1"):
        difficulty_factor(accuracy)


@pytest.mark.parametrize(
    ("failures", "returns"),
    [
        ([], []),
        ([True], [-0.5]),
        ([False], [0.0]),
        ([False, True], [-0.1, -0.5]),
        ([True, True], [-0.6, -0.5]),
        ([True, False, True], [-0.52, -0.1, -0.5]),
    ],
)
def test_turn_returns_are_discounted_backwards(failures, returns):
    assert turn_returns(failures) == pytest.approx(returns, abs=1e-12)


@given(st.lists(st.booleans(), max_size=12))
def test_turn_returns_stay_between_minus_five_eighths_and_zero(failures):
    assert all(-0.625 <= value <= 0.0 for value in turn_returns(failures))


def test_a_right_answer_without_a_tool_earns_one():
    terms = score_group([trajectory(), trajectory(accuracy=0.0)])
    assert terms[0] == {"accuracy": 1.0, "format": 0.0, "tool_sequence": 0.0, "tool_turn": 0.0}
    assert terms[1]["accuracy"] == 0.0


@pytest.mark.parametrize(
    "one",
    [
        trajectory(answered(fault="a think tag without its other half")),
        trajectory(ending=Ending.MALFORMED, accuracy=0.0),
        trajectory(ending=Ending.TURN_LIMIT, accuracy=0.0),
        trajectory(ending=Ending.TOKEN_LIMIT, accuracy=0.0),
    ],
)
def test_a_format_fault_costs_a_fifth_once(one):
    assert score_group([one])[0]["format"] == -0.2


def test_faults_in_several_turns_are_charged_once():
    turn = replace(CALL, action=replace(CALL.action, format_fault="a think tag"))
    assert score_group([trajectory(turn, turn, answered(fault="…"))])[0]["format"] == -0.2


def test_the_paper_pays_the_share_of_calls_that_succeeded():
    one = trajectory(call("a"), failed(), call(""), failed(Outcome.TIMEOUT))
    assert tool_sequence(one, 0.5, "bat_paper") == pytest.approx(0.3 * 1.5 * 2 / 4)
    wrong = trajectory(call("a"), failed(), accuracy=0.0)
    assert tool_sequence(wrong, 0.25, "bat_paper") == pytest.approx(0.680797 * 0.5 / 2, abs=1e-6)
    assert tool_sequence(trajectory(), 0.5, "bat_paper") == 0.0


def test_bat_pays_the_share_of_calls_with_evidence_among_calls_with_output():
    one = trajectory(CALL, call("", evidence=False), call("b", evidence=False), failed())
    assert tool_sequence(one, 0.5) == pytest.approx(0.3 * 1.5 * 1 / 3)
    assert tool_sequence(trajectory(CALL, accuracy=0.0), 0.5) == pytest.approx(0.15)


def test_the_maximum_that_calls_can_earn():
    assert tool_sequence(trajectory(CALL), 0.125) == pytest.approx(1.5 * difficulty_factor(0.125))


def test_constants_earn_nothing_right_or_wrong():
    for accuracy in (0.0, 1.0):
        one = trajectory(call("5", evidence=False), accuracy=accuracy)
        assert tool_sequence(one, 0.5) == 0.0


def test_silent_blocks_are_neutral_if_tools_are_encouraged():
    silent = call("", evidence=False)
    assert tool_sequence(trajectory(silent), 0.5) == 0.0
    assert tool_sequence(trajectory(silent, CALL), 0.5) == tool_sequence(trajectory(CALL), 0.5)


def test_a_failed_silent_block_lowers_the_share():
    assert tool_sequence(trajectory(failed(), CALL), 0.5) == pytest.approx(0.3 * 1.5 / 2)


def test_missing_evidence_is_an_error_not_a_zero():
    one = trajectory(call("a"))
    assert needs_evidence(one, group_accuracy=0.5)
    with pytest.raises(ValueError, match="call record_evidence"):
        score_group([one, trajectory(accuracy=0.0)])
    assert not needs_evidence(one, group_accuracy=1.0)
    assert not needs_evidence(one, group_accuracy=0.0)
    assert not needs_evidence(one, group_accuracy=0.5, reward="bat_paper")


def test_a_task_that_needs_no_image_requires_only_new_output():
    one = trajectory(call("a"), call("a"), needs_picture=False)
    assert tool_sequence(one, 0.5) == pytest.approx(0.3 * 1.5 / 2)


def test_an_all_wrong_group_pays_nothing_for_calls():
    lone = trajectory(CALL, accuracy=0.0)
    group = [lone, *[trajectory(accuracy=0.0)] * 7]
    assert score_group(group)[0]["tool_sequence"] == 0.0
    assert score_group(group, reward="bat_paper")[0]["tool_sequence"] == pytest.approx(
        0.78201 * 0.5, abs=1e-5
    )


@pytest.mark.parametrize(
    ("calls", "share"), [(0, 0.0), (1, 1.0), (2, 1.5), (3, 1.75), (6, 1.96875)]
)
def test_on_easy_tasks_every_call_costs(calls, share):
    right = trajectory(*[CALL] * calls)
    assert tool_sequence(right, 1.0) == pytest.approx(-0.182014 * 1.5 * share, abs=1e-5)
    wrong = trajectory(*[CALL] * calls, accuracy=0.0)
    assert tool_sequence(wrong, 0.75) == pytest.approx(-0.08080 * 0.5 * share, abs=1e-5)


def test_on_easy_tasks_failed_or_silent_calls_are_not_cheaper():
    costs = {
        tool_sequence(trajectory(one, one), 1.0)
        for one in (CALL, failed(), call("", evidence=False), call("5", evidence=False))
    }
    assert len(costs) == 1


@given(
    st.floats(0, 1),
    st.lists(st.sampled_from([CALL, failed(), call("", evidence=False)]), max_size=9),
)
def test_right_beats_wrong_by_four_tenths_for_any_calls(accuracy, calls):
    def total(answer):
        return group_reward(
            score_trajectory(trajectory(*calls, accuracy=answer), group_accuracy=accuracy)
        )

    assert -0.55 <= tool_sequence(trajectory(*calls), accuracy) <= 1.5 * 0.7821
    assert total(1.0) > 0.45
    assert total(1.0) - total(0.0) > 0.4


@given(st.floats(0.68, 1.0), st.integers(0, 8))
def test_on_easy_tasks_an_additional_call_never_pays(accuracy, calls):
    fewer, more = (tool_sequence(trajectory(*[CALL] * n), accuracy) for n in (calls, calls + 1))
    assert more < fewer


def test_each_switch_is_independent():
    paper = reward_preset("bat_paper")
    constant = trajectory(call("5", evidence=False))
    evidence = replace(paper, counts_evidence=True)
    assert tool_sequence(constant, 0.5, evidence) == 0.0
    assert tool_sequence(constant, 0.5, paper) == pytest.approx(0.45)
    assert tool_sequence(trajectory(CALL), 0.0, evidence) == pytest.approx(1.5 * 0.78201, abs=1e-4)
    unsolved = replace(paper, pays_unsolved=False)
    assert tool_sequence(trajectory(CALL), 0.0, unsolved) == 0.0
    assert tool_sequence(constant, 0.5, unsolved) == pytest.approx(0.45)
    easy = replace(paper, charges_easy_calls=True)
    assert tool_sequence(trajectory(failed()), 1.0, paper) == 0.0
    assert tool_sequence(trajectory(failed()), 1.0, easy) == pytest.approx(-0.27302, abs=1e-4)
    assert tool_sequence(constant, 0.5, easy) == pytest.approx(0.45)


def test_with_only_evidence_switched_on_silence_counts_on_easy_tasks():
    preset = replace(reward_preset("bat_paper"), counts_evidence=True)
    one = trajectory(call("", evidence=False), CALL)
    assert tool_sequence(one, 1.0, preset) == pytest.approx(-0.18201 * 1.5 / 2, abs=1e-5)


def test_the_bonus_is_paid_for_a_right_answer_with_a_tool():
    def bonus(one):
        return tool_sequence(one, 1.0, "tool_bonus")

    assert bonus(trajectory(failed())) == 1.5
    assert bonus(trajectory(CALL, CALL)) == 1.5
    assert bonus(trajectory()) == bonus(trajectory(CALL, accuracy=0.0)) == 0.0


def test_outcome_is_accuracy_and_format_only():
    terms = score_group([trajectory(failed(), CALL)], reward="outcome")[0]
    assert terms == {"accuracy": 1.0, "format": 0.0, "tool_sequence": 0.0, "tool_turn": 0.0}


def test_a_failed_turn_costs_a_tenth_if_turns_count():
    one = trajectory(failed(), CALL, failed(Outcome.KILLED))
    paid = {name: score_group([one], reward=name)[0]["tool_turn"] for name in PRESETS}
    assert paid == {
        "outcome": 0.0,
        "tool_bonus": 0.0,
        "bat_sequence": 0.0,
        "bat": pytest.approx(-0.2),
        "bat_paper": pytest.approx(-0.2),
    }


def test_bat_sequence_is_bat_without_the_turns():
    group = [trajectory(CALL, failed()), trajectory(accuracy=0.0)]
    ours, bare = score_group(group), score_group(group, reward="bat_sequence")
    assert [one | {"tool_turn": 0.0} for one in ours] == bare
    assert group_turn_advantages(group, reward="bat_sequence") == [[0.0, 0.0, 0.0], [0.0]]


def test_an_unscored_trajectory_is_none_and_enters_no_statistic():
    lost = trajectory(CALL, accuracy=None, ending=Ending.INFRASTRUCTURE)
    unjudged = trajectory(failed(), accuracy=math.nan)
    group = [trajectory(CALL), trajectory(accuracy=0.0), lost, unjudged]
    assert group_accuracy(group) == 0.5
    terms = score_group(group)
    assert terms[0]["tool_sequence"] == pytest.approx(0.45)
    assert terms[2] == terms[3] == dict.fromkeys(TERMS)
    assert math.isnan(group_reward(terms[2]))
    assert group_turn_advantages(group)[3] == [0.0, 0.0]


def test_an_infrastructure_ending_is_not_scored_even_with_an_accuracy():
    lost = trajectory(accuracy=1.0, ending=Ending.INFRASTRUCTURE)
    assert score_group([lost, trajectory(accuracy=0.0)])[0]["accuracy"] is None
    assert group_accuracy([lost]) is None


def test_a_group_without_scored_members_has_no_terms():
    assert score_group([trajectory(accuracy=None)] * 2) == [dict.fromkeys(TERMS)] * 2
    assert score_group([]) == []


def test_an_accuracy_above_one_is_rejected():
    with pytest.raises(ValueError, match="accuracy is 0 to 1"):
        score_group([trajectory(accuracy=1.2)])


def test_the_turns_of_a_group_are_standardised_together():
    group = [trajectory(failed(), CALL), trajectory(CALL, accuracy=0.0)]
    # returns [-0.5, 0] and [0]: mean -1/6, population std sqrt(1/18)
    mean, std = -1 / 6, math.sqrt(1 / 18)
    assert group_turn_advantages(group, reward="bat_paper") == [
        [pytest.approx(0.2 * (-0.5 - mean) / std), pytest.approx(0.2 * -mean / std), 0.0],
        [pytest.approx(0.2 * -mean / std), 0.0],
    ]
    ours = group_turn_advantages(group)
    assert ours[0][0] == pytest.approx(0.2 * (-0.5 - mean) / std)
    assert ours[0][1:] == [0.0, 0.0]
    assert ours[1] == [0.0, 0.0]


def test_not_failing_earns_nothing_and_one_failure_among_many_is_bounded():
    group = [trajectory(failed()), *[trajectory(CALL)] * 40]
    assert group_turn_advantages(group)[0][0] == pytest.approx(0.2 * -3.0)
    assert group_turn_advantages(group, reward="bat_paper")[0][0] == pytest.approx(
        0.2 * -math.sqrt(40)
    )
    assert group_turn_advantages(group)[1] == [0.0, 0.0]


def test_equally_failed_turns_get_exactly_zero():
    assert group_turn_advantages([trajectory(failed())] * 8) == [[0.0, 0.0]] * 8


def test_a_custom_term_is_added_to_every_preset():
    @register_reward_term("brevity", weight=-0.01)
    def brevity(one):
        return len(one.turns)

    try:
        terms = score_group([trajectory(CALL), trajectory(accuracy=0.0)])
        assert terms[0]["brevity"] == pytest.approx(-0.02)
        assert group_reward(terms[1]) == pytest.approx(-0.01)
        lost = trajectory(accuracy=None, ending=Ending.INFRASTRUCTURE)
        assert score_group([lost])[0]["brevity"] is None
    finally:
        unregister_reward_term("brevity")
    assert "brevity" not in score_group([trajectory()])[0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_infinite_custom_term_is_rejected_by_name(value):
    register_reward_term("broken")(lambda one: value)
    try:
        with pytest.raises(ValueError, match="'broken' returned"):
            score_group([trajectory()])
    finally:
        unregister_reward_term("broken")


@pytest.mark.parametrize("name", [*TERMS, ""])
def test_a_built_in_term_cannot_be_replaced(name):
    with pytest.raises(ValueError, match="built-in"):
        register_reward_term(name)


def test_the_error_for_an_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'bat_paper'"):
        score_group([trajectory()], reward="bat_papr")
