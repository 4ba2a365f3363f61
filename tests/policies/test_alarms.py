"""Each alarm rings in a run that provokes it, and is silent in one that does not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codedance.envs import register_reward_term
from codedance.envs.rewards.presets import PRESETS
from codedance.envs.rewards.registry import unregister_reward_term, with_terms
from codedance.policies.training.grpo.alarms import AlarmBoard, AlarmConfig, idle_terms
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import GroupSampler, score
from codedance.policies.training.grpo.loop import GRPORun, train_grpo
from codedance.policies.training.grpo.metrics import step_metrics

from .players import AbsentSandbox, PlannedPolicy, code, task

TASKS = [task(index) for index in range(4)]
TINY = GRPOConfig(
    steps=4,
    tasks_per_step=2,
    num_generations=4,
    learning_rate=1e-3,
    max_new_tokens=8,
    max_redraws=0,
    reward="outcome",
    scale_rewards="group",
)
SHORT = AlarmConfig(window=2, constant_steps=3)
RECORDED = Path(__file__).with_name("recorded")


def rung(steps, config=SHORT, idle=frozenset()):
    """Return the names of the alarms that a stream raises, with their steps."""
    board = AlarmBoard(config, idle)
    return {a.name: a.step for n, m in enumerate(steps, 1) for a in board.observe(n, m)}


def trained(start, folder, sandbox, config=TINY):
    stream = []
    train_grpo(
        start,
        TASKS,
        config,
        sandbox=sandbox,
        folder=folder,
        on_step=lambda _, metrics: stream.append(dict(metrics)),
    )
    return stream


def recorded(name):
    lines = (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def letters():
    """A term that tells a random model's siblings apart."""

    def letters(one):
        text = one.turns[0].text
        return sum(character.isascii() for character in text) / max(len(text), 1)

    register_reward_term("letters")(letters)
    yield
    unregister_reward_term("letters")


@pytest.mark.usefixtures("letters")
def test_a_term_that_is_the_same_for_all_is_told_of_and_one_that_varies_is_not(
    tiny_folder, tmp_path, sandbox
):
    # A random model never answers: accuracy is always 0 and the format always at fault.
    stream = trained(tiny_folder, tmp_path, sandbox)
    found = rung(stream, idle=idle_terms(PRESETS["outcome"]))
    assert found == {"constant_term.accuracy": 3, "constant_term.format": 3}
    assert "constant_term.tool_sequence" in rung(stream)


def answers(*choices):
    """A policy whose siblings say these in turn; every task is asked four times."""

    def plan(conversation):
        return choices[conversation.seed % len(choices)] if conversation.turn == 0 else choices[0]

    return PlannedPolicy(plan)


def sampled(policy, sandbox, config=TINY, step=0):
    """Return the metrics of a step that a policy without weights acts in."""
    kept, replaced = GroupSampler(TASKS, config, sandbox=sandbox).sample(policy, step)
    return step_metrics(kept, replaced)


RIGHT, WRONG = "<answer>5</answer>", "<answer>6</answer>"


def test_episodes_lost_to_our_infrastructure_ring_at_once_and_a_whole_sandbox_does_not(sandbox):
    policy = answers(RIGHT, code("print(1)"))
    assert rung([sampled(policy, AbsentSandbox())]) == {"infrastructure": 1}
    assert "infrastructure" not in rung([sampled(policy, sandbox)] * 3)


def test_a_single_loss_among_many_steps_is_below_the_share():
    quiet = {"infrastructure_share": 0.0}
    config = AlarmConfig(window=20)
    assert rung([*[quiet] * 19, {"infrastructure_share": 0.5}], config) == {}
    assert rung([*[quiet] * 5, {"infrastructure_share": 0.5}], config) == {"infrastructure": 6}


def test_tool_calls_that_stop_ring_and_calls_that_go_on_do_not(sandbox):
    calling = sampled(answers(code("print(1)"), RIGHT), sandbox)
    direct = sampled(answers(RIGHT, WRONG), sandbox)
    assert calling["tool_calls/mean"] > 0.1
    assert direct["tool_calls/mean"] == 0.0
    assert rung([calling, calling, direct, direct])["tool_calls"] == 4
    assert "tool_calls" not in rung([calling] * 6)
    assert "tool_calls" not in rung([direct] * 6)


def test_code_that_begins_to_fail_and_answers_that_go_wrong_ring(sandbox):
    good = sampled(answers(code("print(1)"), RIGHT), sandbox)
    bad = sampled(answers(code("1/0"), WRONG), sandbox)
    found = rung([good, good, bad, bad])
    assert {"execution_success", "accuracy"} <= found.keys()
    assert not {"execution_success", "accuracy"} & rung([good] * 6).keys()
    assert not {"execution_success", "accuracy"} & rung([bad, bad, good, good]).keys()


@pytest.mark.usefixtures("letters")
def test_entropy_that_collapses_rings_and_slow_learning_does_not(tiny_folder, tmp_path, sandbox):
    config = replace(TINY, steps=14, tasks_per_step=4, num_generations=8, learning_rate=5e-2)
    fast = trained(tiny_folder, tmp_path / "fast", sandbox, config)
    assert fast[-1]["entropy"] < 0.1 * fast[0]["entropy"]
    assert "entropy" in rung(fast)
    slow = trained(tiny_folder, tmp_path / "slow", sandbox, replace(TINY, learning_rate=1e-5))
    assert "entropy" not in rung(slow)


@pytest.mark.usefixtures("letters")
def test_weights_that_change_between_drawing_and_learning_ring(tiny_folder, sandbox):
    trainer = GRPORun(tiny_folder, TASKS, TINY, sandbox=sandbox)
    exact = trainer.step(0, None)

    def disturb(*_):
        with torch.no_grad():
            for parameter in trainer.model.model.parameters():
                parameter.mul_(1.05)

    drifted = trainer.step(1, disturb)
    assert rung([exact]) == {}
    assert rung([exact, drifted]) == {"logp_drift": 2}


def test_a_run_that_was_made_to_give_up_its_tool_rings(sandbox):
    # 30 steps of nano at learning rate 2e-3, with a term of -1 for every call.
    found = rung(recorded("calls_punished"), AlarmConfig(window=5))
    assert "tool_calls" in found


def test_a_healthy_run_is_silent():
    # 30 steps of nano as the quick preset trains it, in groups of 4 by 6.
    assert rung(recorded("healthy"), AlarmConfig()) == {}


def test_an_alarm_rings_once_until_its_cause_has_gone():
    bad, good = {"infrastructure_share": 1.0}, {"infrastructure_share": 0.0}
    board = AlarmBoard(AlarmConfig(window=1))
    stream = [bad, bad, good, good, bad]
    steps = [a.step for n, m in enumerate(stream, 1) for a in board.observe(n, m)]
    assert steps == [1, 5]


def test_a_board_that_saw_the_earlier_steps_goes_on_as_if_never_stopped():
    stream = recorded("calls_punished")
    whole, first, second = (AlarmBoard(AlarmConfig(window=5)) for _ in range(3))
    wanted = [a for n, m in enumerate(stream, 1) for a in whole.observe(n, m)]
    found = [a for n, m in enumerate(stream[:12], 1) for a in first.observe(n, m)]
    for n, m in enumerate(stream[:12], 1):
        second.observe(n, m)
    found += [a for n, m in enumerate(stream[12:], 13) for a in second.observe(n, m)]
    assert found == wanted


def test_a_limit_of_zero_is_never_reached():
    never = AlarmConfig(
        window=1,
        tool_calls_share=0.0,
        constant_steps=0,
        success_drop=0.0,
        accuracy_drop=0.0,
        entropy_share=0.0,
        infrastructure_share=0.0,
        logp_drift=0.0,
    )
    assert rung([*recorded("calls_punished"), {"infrastructure_share": 1.0}], never) == {}


def test_terms_that_a_reward_holds_at_zero_are_idle():
    assert idle_terms(PRESETS["outcome"]) == {"tool_sequence", "tool_turn"}
    assert idle_terms(PRESETS["bat_sequence"]) == {"tool_turn"}
    assert idle_terms(PRESETS["bat"]) == frozenset()
    register_reward_term("mine")(lambda one: 1.0)
    try:
        assert "mine" in idle_terms(with_terms("bat", {"mine": 0.0}))
    finally:
        unregister_reward_term("mine")


@pytest.mark.parametrize("change", [{"window": 0}, {"entropy_share": -0.1}])
def test_limits_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match=f"alarms.{next(iter(change))}"):
        AlarmConfig(**change)


def test_groups_report_the_spread_of_every_term(sandbox):
    from .players import trajectory

    group = [trajectory(), trajectory(accuracy=0.0), trajectory(accuracy=None)]
    metrics = step_metrics([score(group, TINY, sandbox=sandbox)], [])
    assert metrics["rewards/accuracy/std"] == 0.5
    assert metrics["rewards/format/std"] == 0.0
