"""Every combination of the reward's independent switches, on every kind of group."""

import itertools
import math
from dataclasses import replace

import pytest
from codedance.envs.rewards import score_group
from codedance.envs.rewards.presets import RewardPreset
from codedance.envs.rewards.terms import (
    group_accuracy,
    group_reward,
    group_turn_advantages,
    needs_evidence,
    score_trajectory,
)
from codedance.envs.types import Ending
from codedance.envs.visual_code import VisualCodeEnv
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import score

from ..toys import InProcessSandbox, ToySuite, call, failed, trajectory

SWITCHES = {
    "sequence": ("none", "bonus", "bat"),
    "counts_evidence": (False, True),
    "pays_unsolved": (False, True),
    "charges_easy_calls": (False, True),
    "turn_clip": (None, 3.0),
    "turn_weight": (0.0, 0.2),
}
PRESETS = [
    RewardPreset("one of all", **dict(zip(SWITCHES, values, strict=True)))
    for values in itertools.product(*SWITCHES.values())
]
LOOK = "print(input_image.getpixel((3, 3)))"
PROGRAMS = [(), (LOOK,), ("print(5)",), ("x = 1",), ("1/0",), (LOOK, "1/0", "x = 1", "print(5)")]
ACCURACIES = {  # accuracies of six siblings, one per program
    "all right": (1.0,) * 6,
    "easy": (1.0, 1.0, 1.0, 0.0, 1.0, 1.0),
    "mixed": (1.0, 0.0, 1.0, 0.0, 1.0, 0.0),
    "hard": (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "all wrong": (0.0,) * 6,
    "half lost": (1.0, None, 1.0, None, None, 0.0),
    "one left": (None, None, None, None, None, 1.0),
    "all lost": (None,) * 6,
}


def sibling(program, accuracy):
    """Return a trajectory without evidence recorded yet."""
    turns = []
    for block in program:
        if block == "1/0":
            turns.append(failed())
        else:
            turns.append(call({LOOK: "7", "print(5)": "5", "x = 1": ""}[block]))
    if accuracy is None:
        return trajectory(*turns, accuracy=None, ending=Ending.INFRASTRUCTURE)
    return trajectory(*turns, accuracy=accuracy)


def looked(one):
    """Record the evidence that a replay would find: only ``7``."""
    turns = [
        replace(turn, has_evidence=turn.execution.stdout == "7") if turn.is_tool_turn else turn
        for turn in one.turns
    ]
    return replace(one, turns=tuple(turns))


def group_of(kind, preset):
    """Return a group, with evidence only if the preset requires it."""
    members = [sibling(*pair) for pair in zip(PROGRAMS, ACCURACIES[kind], strict=True)]
    accuracy = group_accuracy(members)
    if accuracy is None:
        return members
    return [
        looked(one) if needs_evidence(one, group_accuracy=accuracy, reward=preset) else one
        for one in members
    ]


@pytest.mark.parametrize("kind", ACCURACIES)
def test_every_combination_scores_every_group_with_finite_terms(kind):
    for preset in PRESETS:
        members = group_of(kind, preset)
        for one, terms in zip(members, score_group(members, reward=preset), strict=True):
            reward = group_reward(terms)
            if one.accuracy is None:
                assert set(terms.values()) == {None}
                assert math.isnan(reward)
                continue
            assert all(math.isfinite(value) for value in terms.values())
            assert terms["accuracy"] == one.accuracy
            assert abs(terms["tool_sequence"]) <= 1.5
            if not one.tool_turns or preset.sequence == "none":
                assert terms["tool_sequence"] == 0.0
        for turns in group_turn_advantages(members, reward=preset):
            assert all(math.isfinite(value) for value in turns)


@pytest.mark.parametrize("accuracy", [0.0, 1 / 6, 0.5, 0.7, 5 / 6, 1.0])
def test_a_right_answer_beats_a_wrong_one_under_every_combination(accuracy):
    for preset in PRESETS:
        settings = {"group_accuracy": accuracy, "reward": preset}
        wrong, right = (
            [
                group_reward(score_trajectory(looked(sibling(program, value)), **settings))
                for program in PROGRAMS
            ]
            for value in (0.0, 1.0)
        )
        assert min(right) > max(wrong)


@pytest.mark.parametrize("accuracy", [0.0, 1 / 6, 0.5, 0.7, 5 / 6, 1.0])
def test_a_constant_earns_nothing_in_every_combination_that_counts_evidence(accuracy):
    for preset in PRESETS:
        if preset.sequence != "bat" or not preset.counts_evidence:
            continue
        for value in (0.0, 1.0):
            terms = score_trajectory(
                looked(sibling(("print(5)", "x = 1"), value)),
                group_accuracy=accuracy,
                reward=preset,
            )
            assert terms["tool_sequence"] <= 0.0


def sequence(group_accuracy, program, *, right=True, **switches):
    preset = RewardPreset("by hand", **switches)
    one = looked(sibling(program, 1.0 if right else 0.0))
    return score_trajectory(one, group_accuracy=group_accuracy, reward=preset)["tool_sequence"]


EASIEST = (1 + math.tanh(-2.0)) / 2 - 0.2  # -0.18201, the factor if all are right
HARDEST = (1 + math.tanh(2.0)) / 2 - 0.2  # 0.78201, the factor if none is right


@pytest.mark.parametrize(
    ("switches", "right", "wrong"),
    [
        # Four calls on an easy group: one with evidence, one failed, one silent, one constant.
        ({}, 1.5 * 3 / 4, 0.5 * 3 / 4),
        ({"counts_evidence": True}, 1.5 * 1 / 4, 0.5 * 1 / 4),
        ({"charges_easy_calls": True}, 1.5 * 1.875, 0.5 * 1.875),
        ({"counts_evidence": True, "charges_easy_calls": True}, 1.5 * 1.875, 0.5 * 1.875),
        ({"pays_unsolved": False}, 1.5 * 3 / 4, 0.5 * 3 / 4),
    ],
)
def test_an_easy_group_by_hand(switches, right, wrong):
    program = (LOOK, "1/0", "x = 1", "print(5)")
    assert sequence(1.0, program, **switches) == pytest.approx(EASIEST * right)
    assert sequence(1.0, program, right=False, **switches) == pytest.approx(EASIEST * wrong)


@pytest.mark.parametrize(
    ("switches", "share"),
    [
        ({}, 3 / 4),
        ({"counts_evidence": True}, 1 / 3),  # the silent one is in neither count
        ({"charges_easy_calls": True}, 3 / 4),  # nothing is charged if tools are encouraged
        ({"pays_unsolved": False}, 0.0),
        ({"counts_evidence": True, "pays_unsolved": False}, 0.0),
    ],
)
def test_a_group_without_a_right_answer_by_hand(switches, share):
    program = (LOOK, "1/0", "x = 1", "print(5)")
    expected = pytest.approx(HARDEST * 0.5 * share)
    assert sequence(0.0, program, right=False, **switches) == expected


def test_bat_without_charges_for_easy_calls_requires_evidence_on_easy_tasks():
    preset = RewardPreset("bat", counts_evidence=True, charges_easy_calls=False)
    one = sibling((LOOK, "print(5)"), 1.0)
    assert needs_evidence(one, group_accuracy=1.0, reward=preset)
    terms = score_trajectory(looked(one), group_accuracy=1.0, reward=preset)
    assert terms["tool_sequence"] == pytest.approx(EASIEST * 1.5 / 2)


@pytest.mark.parametrize("answer", ["3", "4"])  # 3 is the task's answer
def test_every_combination_plays_in_the_environment_on_easy_and_hard_tasks(answer):
    program = (LOOK, "1/0", "x = 1", "print(5)")
    for preset in PRESETS:
        for accuracy in (0.0, 1.0):
            env = VisualCodeEnv(ToySuite(), sandbox=InProcessSandbox(), reward=preset)
            env.accuracy_of = lambda task, accuracy=accuracy: accuracy
            env.reset(options={"task_id": "toy/counting/train/3"})
            total = sum(env.step(f"```python\n{block}\n```")[1] for block in program)
            _, reward, is_over, is_lost, info = env.step(f"<answer>{answer}</answer>")
            assert (is_over, is_lost, info["is_valid"]) == (True, False, True)
            assert math.isfinite(total + reward)
            env.close()


@pytest.mark.parametrize("accuracies", ACCURACIES.values(), ids=ACCURACIES)
def test_every_combination_trains_on_groups_without_recorded_evidence(accuracies):
    sandbox, cache = InProcessSandbox(), {}
    members = [sibling(*pair) for pair in zip(PROGRAMS, accuracies, strict=True)]
    for preset in PRESETS:
        group = score(members, GRPOConfig(reward=preset), sandbox=sandbox, cache=cache)
        assert all(math.isfinite(value) for value in group.advantages)
        for one, advantage in zip(members, group.advantages, strict=True):
            assert one.accuracy is not None or advantage == 0.0
