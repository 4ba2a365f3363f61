"""Failures that a block hides, and failures that more calls are to make up for."""

from dataclasses import replace

import pytest
from codedance.envs.rewards import score_group
from codedance.envs.rewards.presets import PRESETS
from codedance.envs.rewards.terms import (
    group_turn_advantages,
    needs_evidence,
    score_trajectory,
)
from codedance.envs.visual_code import VisualCodeEnv
from codedance.sandbox import open_sandbox
from hypothesis import given
from hypothesis import strategies as st

from ..toys import ToySuite, call, failed, trajectory

LOOKS = [call(str(n), evidence=True) for n in range(6)]
CONSTANT, SILENT = call("five", evidence=False), call("", evidence=False)
HIDDEN = call("", handled=True)
MESSAGE = call("no pixels", evidence=False, handled=True)
FALLBACK = call("7", evidence=True, handled=True)


def terms(*turns, mu=0.5, reward="bat", **settings):
    one = trajectory(*turns, **settings)
    return score_trajectory(one, group_accuracy=mu, reward=reward)


def sequence(*turns, **settings):
    return terms(*turns, **settings)["tool_sequence"]


@pytest.mark.parametrize("hidden", [HIDDEN, MESSAGE], ids=["silent", "printed"])
@pytest.mark.parametrize("mu", [0.125, 0.5, 0.9])
def test_a_hidden_failure_counts_as_a_failure(hidden, mu):
    for others in ([], LOOKS[:1], [CONSTANT], LOOKS[:3], [failed()]):
        assert terms(hidden, *others, mu=mu) == terms(failed(), *others, mu=mu)


def test_a_fallback_that_gives_evidence_is_as_good_as_any_call():
    assert terms(FALLBACK) == terms(LOOKS[0])
    assert terms(HIDDEN, FALLBACK) == terms(failed(), LOOKS[0])


def test_the_turn_that_hides_a_failure_has_its_advantage():
    group = [trajectory(HIDDEN, LOOKS[0]), trajectory(LOOKS[0]), trajectory(MESSAGE)]
    bare = [trajectory(failed(), LOOKS[0]), trajectory(LOOKS[0]), trajectory(failed())]
    assert group_turn_advantages(group) == group_turn_advantages(bare)
    assert group_turn_advantages(group)[0][0] < 0.0


@pytest.mark.parametrize("reward", ["outcome", "tool_bonus", "bat_paper"])
def test_other_presets_do_not_read_the_record(reward):
    turns = [HIDDEN, MESSAGE, FALLBACK]
    calm = [call("", evidence=False), call("no pixels", evidence=False), LOOKS[0]]
    assert terms(*turns, reward=reward) == terms(*calm, reward=reward)
    assert not needs_evidence(trajectory(*turns), group_accuracy=0.5, reward=reward)


def test_evidence_is_needed_for_the_turn_term_where_tool_sequence_needs_none():
    unknown = trajectory(call("no pixels", handled=True))
    assert needs_evidence(unknown, group_accuracy=0.9)
    assert needs_evidence(unknown, group_accuracy=0.0)
    assert not needs_evidence(unknown, group_accuracy=0.9, reward="bat_sequence")
    assert not needs_evidence(trajectory(call("a")), group_accuracy=0.9)
    assert not needs_evidence(trajectory(HIDDEN), group_accuracy=0.9)
    with pytest.raises(ValueError, match="record_evidence"):
        score_group([unknown, trajectory()])


def test_bat_sequence_is_bat_without_the_turn_term():
    for turns in ([HIDDEN, LOOKS[0]], [failed(), *LOOKS], [MESSAGE], [FALLBACK]):
        for mu in (0.125, 0.5, 0.9):
            whole, part = terms(*turns, mu=mu), terms(*turns, mu=mu, reward="bat_sequence")
            assert part == whole | {"tool_turn": 0.0}


@pytest.mark.parametrize("bad", [failed(), HIDDEN, MESSAGE], ids=["failed", "silent", "printed"])
def test_no_number_of_looks_makes_up_for_a_failure(bad):
    one = sequence(bad, LOOKS[0])
    assert one == pytest.approx(0.3 * 1.5 / 2)
    for count in range(2, 6):
        assert sequence(bad, *LOOKS[:count]) == one
        assert sequence(*LOOKS[:count], bad) == one
    assert sequence(bad, bad, *LOOKS) == pytest.approx(0.3 * 1.5 / 3)
    assert sequence(bad, CONSTANT, *LOOKS) == pytest.approx(0.3 * 1.5 / 3)


def test_without_a_failure_the_share_is_what_it_was():
    assert sequence(CONSTANT, *LOOKS[:3]) == pytest.approx(0.3 * 1.5 * 3 / 4)
    assert sequence(SILENT, *LOOKS[:2]) == pytest.approx(0.3 * 1.5)


CALLS = st.lists(st.sampled_from([LOOKS[0], LOOKS[1], CONSTANT, SILENT, failed()]), max_size=5)


@given(CALLS, st.sampled_from([0.125, 0.25, 0.5, 0.625]))
def test_recovery_pays_and_failing_does_not(others, mu):
    clean = sequence(LOOKS[5], *others, mu=mu)
    recovered = sequence(failed(), LOOKS[5], *others, mu=mu)
    gave_up = sequence(failed(), *[one for one in others if not one.has_evidence], mu=mu)
    assert gave_up == 0.0 < recovered < clean
    assert sequence(failed(), failed(), LOOKS[5], *others, mu=mu) < recovered


def test_each_switch_closes_its_loophole():
    bat = PRESETS["bat"]
    open_to_hiding = replace(bat, charges_hidden=False)
    assert terms(HIDDEN, LOOKS[0], reward=open_to_hiding) == terms(LOOKS[0])
    open_to_padding = replace(bat, pays_padding=True)
    assert sequence(failed(), *LOOKS[:4], reward=open_to_padding) == pytest.approx(0.36)


def test_the_environment_charges_a_hidden_failure_once_the_episode_has_ended():
    hide = "try:\n    print(pixels)\nexcept NameError as error:\n    print(error)"
    with open_sandbox("local") as sandbox:
        env = VisualCodeEnv(suite=ToySuite(), sandbox=sandbox, reward="bat", max_turns=5)
        env.reset(options={"task_id": "toy/counting/train/5"})
        paid = [
            env.step(text)[4]["reward_terms"]["tool_turn"]
            for text in (
                f"```python\n{hide}\n```",
                "```python\n1/0\n```",
                "```python\nprint(input_image.getpixel((3, 3)))\n```",
                "<answer>5</answer>",
            )
        ]
        one = env.trajectory()
        env.close()
    assert paid == pytest.approx([0.0, -0.1, 0.0, -0.1])
    assert [turn.execution.has_handled_error for turn in one.tool_turns] == [True, False, False]
