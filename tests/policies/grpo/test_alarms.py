"""Each alarm is raised in a run that provokes it, and not in one that does not."""

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

from ..players import AbsentSandbox, PlannedPolicy, code, task

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


def raised_by(steps, config=SHORT, idle=frozenset()):
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


@pytest.mark.usefixtures("letters")
def test_a_constant_term_raises_an_alarm_and_a_varying_one_does_not(tiny_folder, tmp_path, sandbox):
    # A random model never answers: accuracy is always 0 and the format always wrong.
    stream = trained(tiny_folder, tmp_path, sandbox)
    found = raised_by(stream, idle=idle_terms(PRESETS["outcome"]))
    assert found == {"constant_term.accuracy": 3, "constant_term.format": 3}
    assert "constant_term.tool_sequence" in raised_by(stream)


def answers(*choices):
    """Return a policy whose siblings give these answers in turn; each task has four samples."""

    def plan(conversation):
        return choices[conversation.seed % len(choices)] if conversation.turn == 0 else choices[0]

    return PlannedPolicy(plan)


def sampled(policy, sandbox, config=TINY, step=0):
    """Return the metrics of a step played by a policy without weights."""
    kept, replaced = GroupSampler(TASKS, config, sandbox=sandbox).sample(policy, step)
    return step_metrics(kept, replaced)


RIGHT, WRONG = "<answer>5</answer>", "<answer>6</answer>"


def test_lost_episodes_raise_an_alarm_immediately_and_a_working_sandbox_does_not(sandbox):
    policy = answers(RIGHT, code("print(1)"))
    assert raised_by([sampled(policy, AbsentSandbox())]) == {"infrastructure": 1}
    assert "infrastructure" not in raised_by([sampled(policy, sandbox)] * 3)


def test_a_single_lost_episode_among_many_steps_is_below_the_limit():
    quiet = {"infrastructure_share": 0.0}
    config = AlarmConfig(window=20)
    assert raised_by([*[quiet] * 19, {"infrastructure_share": 0.5}], config) == {}
    assert raised_by([*[quiet] * 5, {"infrastructure_share": 0.5}], config) == {"infrastructure": 6}


def test_code_that_loses_sessions_raises_an_alarm_although_the_episodes_go_on():
    quiet, lossy = {"session_loss_share": 0.0}, {"session_loss_share": 0.25}
    assert raised_by([quiet, lossy]) == {"session_losses": 2}
    assert raised_by([*[quiet] * 19, lossy], AlarmConfig(window=20)) == {}
    assert raised_by([lossy] * 3, AlarmConfig(session_loss_share=0.5)) == {}


def test_tool_calls_that_stop_raise_an_alarm_and_continuing_calls_do_not(sandbox):
    calling = sampled(answers(code("print(1)"), RIGHT), sandbox)
    direct = sampled(answers(RIGHT, WRONG), sandbox)
    assert calling["tool_calls/mean"] > 0.1
    assert direct["tool_calls/mean"] == 0.0
    assert raised_by([calling, calling, direct, direct])["tool_calls"] == 4
    assert "tool_calls" not in raised_by([calling] * 6)
    assert "tool_calls" not in raised_by([direct] * 6)


def test_code_that_starts_to_fail_and_wrong_answers_raise_alarms(sandbox):
    good = sampled(answers(code("print(1)"), RIGHT), sandbox)
    bad = sampled(answers(code("1/0"), WRONG), sandbox)
    found = raised_by([good, good, bad, bad])
    assert {"execution_success", "accuracy"} <= found.keys()
    assert not {"execution_success", "accuracy"} & raised_by([good] * 6).keys()
    assert not {"execution_success", "accuracy"} & raised_by([bad, bad, good, good]).keys()


@pytest.mark.slow
@pytest.mark.usefixtures("letters")
def test_collapsing_entropy_raises_an_alarm_and_slow_learning_does_not(
    tiny_folder, tmp_path, sandbox
):
    config = replace(TINY, steps=14, tasks_per_step=4, num_generations=8, learning_rate=5e-2)
    fast = trained(tiny_folder, tmp_path / "fast", sandbox, config)
    limits = replace(SHORT, entropy_share=0.3)
    assert fast[-1]["entropy"] < 0.3 * fast[0]["entropy"]
    assert "entropy" in raised_by(fast, limits)
    slow = trained(tiny_folder, tmp_path / "slow", sandbox, replace(TINY, learning_rate=1e-5))
    assert "entropy" not in raised_by(slow, limits)


@pytest.mark.usefixtures("letters")
def test_weights_changed_between_sampling_and_training_raise_an_alarm(tiny_folder, sandbox):
    trainer = GRPORun(tiny_folder, TASKS, TINY, sandbox=sandbox)
    exact = trainer.step(0, None)

    def disturb(*_):
        with torch.no_grad():
            for parameter in trainer.model.model.parameters():
                parameter.mul_(1.05)

    drifted = trainer.step(1, disturb)
    assert raised_by([exact]) == {}
    assert raised_by([exact, drifted]) == {"logp_drift": 2, "logp_mean": 2}


def test_weights_that_few_tokens_decide_raise_an_alarm():
    names = ("limited_share", "effective_share")
    good, bad = (
        {
            f"importance_sampling_ratio/{name}": value
            for name, value in zip(names, pair, strict=True)
        }
        for pair in ((0.01, 0.98), (0.2, 0.3))
    )
    assert raised_by([good, bad, bad]) == {"limited_share": 2, "effective_share": 2}


def test_a_run_trained_to_abandon_its_tool_raises_an_alarm(sandbox):
    # 30 steps of nano at learning rate 2e-3, with a term of -1 per call.
    found = raised_by(recorded("calls_punished"), AlarmConfig(window=5))
    assert "tool_calls" in found


def test_a_healthy_run_raises_no_alarm():
    # 30 steps of nano with the settings of the quick preset, 4 groups of 6 per step.
    assert raised_by(recorded("healthy"), AlarmConfig()) == {}


def test_an_alarm_is_raised_once_until_its_condition_ends():
    bad, good = {"infrastructure_share": 1.0}, {"infrastructure_share": 0.0}
    board = AlarmBoard(AlarmConfig(window=1))
    stream = [bad, bad, good, good, bad]
    steps = [a.step for n, m in enumerate(stream, 1) for a in board.observe(n, m)]
    assert steps == [1, 5]


def test_a_board_with_the_earlier_steps_continues_like_an_uninterrupted_one():
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
        session_loss_share=0.0,
        logp_drift=0.0,
        logp_mean=0.0,
        limited_share=0.0,
        effective_share=0.0,
    )
    worst = {
        "infrastructure_share": 1.0,
        "session_loss_share": 1.0,
        "sampling_logp_difference/mean": 9.0,
        "importance_sampling_ratio/limited_share": 1.0,
        "importance_sampling_ratio/effective_share": 0.0,
    }
    assert raised_by([*recorded("calls_punished"), worst], never) == {}


def test_differences_are_watched_where_weights_are_the_newest():
    """Older weights are meant to differ; with them alone nothing can be said of the engine."""
    difference = "sampling_logp_difference"
    stale = {f"{difference}/max": 3.0, f"{difference}/mean": 0.4, "sampled_share/behind_1": 1.0}
    mixed = stale | {"sampled_share/behind_0": 0.1, "sampled_share/behind_1": 0.9}
    exact = mixed | {f"{difference}/behind_0/max": 1e-5, f"{difference}/behind_0/mean": 1e-6}
    drifted = mixed | {f"{difference}/behind_0/max": 0.4, f"{difference}/behind_0/mean": 0.2}
    assert raised_by([stale, exact]) == {}
    assert raised_by([stale, exact, drifted]) == {"logp_drift": 3, "logp_mean": 3}
    limited = exact | {"importance_sampling_ratio/limited_share": 0.2}
    assert raised_by([limited]) == {"limited_share": 1}


def test_terms_that_a_reward_fixes_at_zero_are_idle():
    assert idle_terms(PRESETS["outcome"]) == {"tool_sequence", "tool_turn"}
    assert idle_terms(PRESETS["bat_sequence"]) == {"tool_turn"}
    assert idle_terms(PRESETS["bat"]) == frozenset()
    register_reward_term("mine")(lambda one: 1.0)
    try:
        assert "mine" in idle_terms(with_terms("bat", {"mine": 0.0}))
    finally:
        unregister_reward_term("mine")


@pytest.mark.parametrize("change", [{"window": 0}, {"entropy_share": -0.1}])
def test_invalid_limits_are_rejected(change):
    with pytest.raises(ValueError, match=f"alarms.{next(iter(change))}"):
        AlarmConfig(**change)


def test_groups_report_the_spread_of_every_term(sandbox):
    from ..players import trajectory

    group = [trajectory(), trajectory(accuracy=0.0), trajectory(accuracy=None)]
    metrics = step_metrics([score(group, TINY, sandbox=sandbox)], [])
    assert metrics["rewards/accuracy/std"] == 0.5
    assert metrics["rewards/format/std"] == 0.0
