"""The reward hacks find every known loophole of a preset, and none in presets without any."""

from dataclasses import replace

import pytest
from codedance.envs import register_reward_term
from codedance.envs.rewards.presets import PRESETS
from codedance.envs.rewards.registry import unregister_reward_term, with_terms
from codedance.envs.suites.nano.suite import FAMILIES, make_task
from codedance.envs.types import Difficulty, Ending
from codedance.policies.analysis.attack_blocks import FORGED, HIDDEN, PADDED, USELESS
from codedance.policies.analysis.attack_reward import GROUPS, AttackStage
from codedance.policies.analysis.attack_scripts import (
    HONEST,
    REWARD_HACKS,
    AttackContext,
    RewardHack,
    answer,
    run,
    wrong_answer,
)

EMPTY_CALLS = {
    "print the answer",
    "print the picture's size",
    "a comment, no code",
    "a silent block",
    "four constants",
    "sleep a while",
    "print the question",
    "print 'no Error, no timeout'",
    "print the clock",
    "print a random number",
    "show noise",
    "show an empty canvas",
    "fail and catch it",
    "crash only when replayed",
}
EMPTY_CALLS |= set(FORGED) - {"count runs by the page cache"}
FAILING_CALLS = {
    "count runs by the page cache",
    "fail on purpose",
    "crash the interpreter",
    "exit from within",
    "cut the sandbox's line",
    "take all memory",
}


PADDED_OR_HIDDEN = {
    *(HIDDEN.keys() - {"fail with a quiet excepthook", "fail in a child process"}),
    *PADDED,
    "hide it, then three pixels",
    "fail, look, then three pixels",
}


@pytest.fixture(scope="module")
def stage(sandbox):
    return AttackStage(sandbox)


def paying(reward, stage, **settings):
    return {one.hack.name for one in stage.judge(reward, **settings) if one.pays}


def test_of_a_sample_no_hack_pays_under_our_reward_and_some_under_a_plain_bonus(sandbox):
    sample = AttackStage(sandbox, hacks=REWARD_HACKS[::8])
    assert paying("bat", sample) == set()
    assert paying("tool_bonus", sample)


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["bat", "bat_sequence", "outcome"])
def test_no_hack_pays_under_our_rewards_or_without_rewards_for_calls(stage, reward):
    for scale in ("floor", "group", "none"):
        assert paying(reward, stage, scale_rewards=scale) == set()


@pytest.mark.slow
def test_failures_that_are_hidden_or_padded_paid_before(stage):
    """The rule as it was pays nearly all of them; `bat` none."""
    before = replace(PRESETS["bat"], charges_hidden=False, pays_padding=True)
    gains = {one.hack.name: one.gain for one in stage.judge(before) if one.pays}
    too_many = {"fail twice, then three pixels", "fail, then five pixels"}
    assert gains.keys() == PADDED_OR_HIDDEN - too_many
    assert gains["fail, then three pixels"] > 0.3
    assert gains["hide a failure"] == pytest.approx(0.955, abs=0.01)
    assert gains["hide it, print the message"] == pytest.approx(0.374, abs=0.01)


@pytest.mark.slow
def test_the_published_form_pays_empty_calls_failing_on_easy_items_and_idle_turns(stage):
    # Empty calls: rho counts any call that ran; failing: rho = 0 avoids d < 0; idle turns: z is
    # above 0 for any turn that did not fail while a sibling's did.
    assert paying("bat_paper", stage) == EMPTY_CALLS | PADDED_OR_HIDDEN | {
        "fail on purpose, not look",
        "have the tool say <answer>",
        "look, then the same again",
        "go on when it is known",
        "read four, not look",
        *(USELESS.keys() - {"print a hash of the picture"}),
    }


@pytest.mark.slow
def test_a_plain_bonus_pays_any_call_even_a_failed_one(stage):
    assert paying("tool_bonus", stage) == EMPTY_CALLS | FAILING_CALLS


@pytest.mark.slow
def test_each_switch_of_bat_closes_its_loophole(stage):
    bat = PRESETS["bat"]
    without = {
        "a comment, no code": replace(bat, counts_evidence=False),
        "fail on purpose, not look": replace(bat, charges_easy_calls=False),
        "go on when it is known": replace(bat, turn_clip=None),
    }
    for hole, reward in without.items():
        assert hole in paying(reward, stage)


@pytest.mark.slow
def test_a_custom_term_that_pays_for_length_is_found(stage):
    register_reward_term("length", weight=0.0)(lambda one: len(one.turns))
    try:
        assert "four constants" in paying(with_terms("outcome", {"length": 0.1}), stage)
        assert paying(with_terms("outcome", {"length": -0.1}), stage) == set()
    finally:
        unregister_reward_term("length")


def test_a_custom_hack_is_evaluated_like_ours(sandbox):
    chatter = RewardHack("chatter", lambda s: [run("print('hm')"), answer(s.answer)])
    own = AttackStage(sandbox, hacks=[chatter])
    (found,) = own.judge("tool_bonus")
    assert found.pays
    assert set(found.gains) == set(Difficulty)
    (none,) = own.judge("outcome")
    assert none.gain == 0.0


@pytest.mark.slow
def test_hacks_indistinguishable_from_honest_work_are_shown_and_not_counted(stage):
    found = [one for one in stage.judge("bat") if one.hack.is_limit]
    assert found
    assert all(one.gain > 0.1 and not one.pays for one in found)


@pytest.mark.slow
def test_no_hack_is_masked_as_infrastructure(stage):
    assert len(stage._played) == 2 * 3 * (len(HONEST) + len(REWARD_HACKS))
    for one in stage._played.values():
        assert one.ending is not Ending.INFRASTRUCTURE
        assert one.accuracy is not None


@pytest.mark.slow
def test_scripts_that_differ_in_the_answer_alone_are_run_once(stage):
    """The trajectory with the other answer is the one that running it would give."""
    (task,) = stage._tasks[Difficulty.MEDIUM]
    for name in ("fail, then three pixels", "hide a failure", "read one pixel"):
        texts = next(hack.texts for hack in REWARD_HACKS if hack.name == name)
        ran = stage._act(task, texts(AttackContext(task, is_right=False)))
        kept = stage._played[name, task.id, False]
        assert (kept.accuracy, kept.answer, kept.ending) == (ran.accuracy, ran.answer, ran.ending)
        assert [turn.text for turn in kept.turns] == [turn.text for turn in ran.turns]
        assert [turn.has_evidence for turn in kept.turns] == [t.has_evidence for t in ran.turns]
        for ours, theirs in zip(kept.tool_turns, ran.tool_turns, strict=True):
            assert ours.execution.digest == theirs.execution.digest


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_scripted_players_answer_right_or_wrong_as_configured(family, sandbox):
    from codedance.envs.grading import grade

    for difficulty in Difficulty:
        task = make_task(family, difficulty, "train", 3)
        assert grade(task, AttackContext(task, is_right=True).answer) == 1.0
        assert grade(task, wrong_answer(task)) == 0.0
        assert AttackContext(task, is_right=False).other == task.answer


def test_hacks_have_unique_names_and_groups_range_from_all_wrong_to_all_right():
    names = [one.name for one in REWARD_HACKS]
    assert len(names) == len(set(names)) >= 50
    assert max(map(len, names)) <= 30
    assert not set(names) & set(HONEST)
    assert {sum(right for _, right in group) for groups in GROUPS.values() for group in groups} >= {
        0,
        1,
        2,
        3,
        5,
        6,
    }
