"""Alarms in other trainers' loops: raised by a run that collapses, and not by a healthy one."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from codedance.policies.training.grpo.alarms import AlarmConfig
from codedance.policies.training.watching import NAMES, AlarmWatch, equal_share

from ..players import trajectory

RECORDED = Path(__file__).parents[1] / "grpo" / "recorded"
SHORT = AlarmConfig(window=5)


def recorded(name):
    """Return the metrics of a real training of ours, step by step."""
    lines = (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def as_trl(ours):
    """Return a step as TRL logs it."""
    logs = {name: value for name, value in ours.items() if name.startswith("rewards/")}
    logs |= {
        "loss": 0.1,
        "reward": ours["reward"],
        "reward_std": 0.5,
        "frac_reward_zero_std": ours["frac_reward_zero_std"],
        "entropy": ours["entropy"],
        "tools/call_frequency": ours["tool_calls/mean"],
        "tools/failure_frequency": 1.0 - ours.get("execution_success", 1.0),
        "sampling/sampling_logp_difference/max": 0.01,
        "kl": None,
    }
    return logs


def as_verl(ours):
    """Return a step as verl logs it."""
    return {
        "tool_call_counts/mean": ours["tool_calls/mean"],
        "critic/score/mean": ours["reward"],
        "critic/score/max": 1.0,
        "critic/score/min": -0.2,
        "actor/entropy": ours["entropy"],
        "perf/throughput": 100.0,
    }


def played(task="toy/0", *, accuracy=1.0, calls=1):
    """Return a scored trajectory with a number of calls."""
    one = trajectory(accuracy=accuracy, blocks=["print(1)"] * calls)
    return replace(one, task_id=task, reward_terms={"accuracy": accuracy})


def raised_by(steps, config=SHORT):
    """Return the names of the alarms of a stream, with their steps."""
    reported = []
    watch = AlarmWatch(config, on_alarm=reported.append)
    found = [alarm for number, step in enumerate(steps, 1) for alarm in watch.observe(number, step)]
    assert found == reported
    return {alarm.name: alarm.step for alarm in found}


@pytest.mark.parametrize("renamed", [as_trl, as_verl, dict])
def test_a_collapse_of_tool_calls_raises_an_alarm_under_any_names(renamed):
    collapsed = [renamed(step) for step in recorded("calls_punished")]
    assert raised_by(collapsed)["tool_calls"] == raised_by(recorded("calls_punished"))["tool_calls"]


@pytest.mark.parametrize("renamed", [as_trl, as_verl, dict])
def test_a_healthy_run_raises_none_under_any_names(renamed):
    assert raised_by(map(renamed, recorded("healthy")), AlarmConfig()) == {}


def test_a_constant_reward_raises_an_alarm_under_the_names_of_trl_and_of_verl():
    config = AlarmConfig(constant_steps=3)
    trl = {"reward": 0.5, "reward_std": 0.0, "frac_reward_zero_std": 1.0}
    assert raised_by([trl] * 4, config) == {"constant_term.total": 3, "equal_siblings": 3}
    verl = {"critic/score/mean": 0.5, "critic/score/max": 0.5, "critic/score/min": 0.5}
    assert raised_by([verl] * 4, config) == {"constant_term.total": 3}
    by_function = {"rewards/accuracy_reward/mean": 0.0, "rewards/accuracy_reward/std": 0.0}
    assert raised_by([by_function] * 4, config) == {"constant_term.accuracy_reward": 3}


def test_rewards_that_differ_between_tasks_only_raise_an_alarm_and_a_single_group_prevents_it():
    config = AlarmConfig(constant_steps=3)
    equal = {"reward": 0.5, "reward_std": 0.5, "frac_reward_zero_std": 1.0}
    assert raised_by([equal] * 4, config) == {"equal_siblings": 3}
    assert raised_by([equal, equal, {**equal, "frac_reward_zero_std": 0.9}] * 3, config) == {}


def test_failing_calls_raise_an_alarm_and_steps_without_calls_do_not():
    good = {"tools/call_frequency": 1.0, "tools/failure_frequency": 0.1}
    bad = {"tools/call_frequency": 1.0, "tools/failure_frequency": 0.5}
    none = {"tools/call_frequency": 0.0, "tools/failure_frequency": 0.0}
    assert raised_by([good] * 5 + [bad] * 5) == {"execution_success": 7}
    assert "execution_success" not in raised_by([good] * 5 + [none] * 5)


def test_an_evaluation_between_two_steps_ends_no_alarm_and_missing_values_count_for_nothing():
    config = AlarmConfig(constant_steps=2)
    step, other = {"reward": 0.5, "reward_std": 0.0}, {"eval_reward": 0.5, "reward_std": math.nan}
    assert raised_by([step, step, other, step, {"reward_std": None}], config) == {
        "constant_term.total": 2
    }


def test_a_name_of_the_users_own_is_watched_and_an_alarm_is_logged(caplog):
    watch = AlarmWatch(SHORT, names={"my/calls": "tool_calls/mean"})
    with caplog.at_level(logging.WARNING):
        for step in range(1, 11):
            watch.observe(step, {"my/calls": 2.0 if step <= 5 else 0.0})
    assert "ALARM at step 9: tool calls collapse" in caplog.text


def test_trajectories_raise_the_alarms_of_their_metrics():
    config = AlarmConfig(window=2, constant_steps=3)
    calling, direct = ([played(calls=n, accuracy=a) for a in (0.0, 1.0)] for n in (2, 0))
    watch = AlarmWatch(config)
    steps = [calling, calling, direct, direct]
    found = [a for n, some in enumerate(steps, 1) for a in watch.observe_trajectories(n, some)]
    assert [(a.name, a.step) for a in found if a.name == "tool_calls"] == [("tool_calls", 4)]
    equal = [played()] * 2
    watch = AlarmWatch(config)
    found = [a.name for n in range(1, 5) for a in watch.observe_trajectories(n, equal)]
    assert {"equal_siblings", "constant_term.accuracy"} <= set(found)
    assert watch.observe_trajectories(5, []) == []


def test_the_share_of_equal_groups_counts_tasks_with_siblings_only():
    def group(task, *accuracies):
        return [played(task, accuracy=one) for one in accuracies]

    assert equal_share([*group("a", 1.0, 1.0), *group("b", 0.0, 1.0), *group("c", 1.0)]) == 0.5
    assert equal_share(group("c", 1.0)) is None


def test_trl_still_logs_the_names_that_are_translated():
    found = find_spec("trl")
    assert found is not None
    source = (Path(found.origin).parent / "trainer" / "grpo_trainer.py").read_text(encoding="utf-8")
    names = {name for name in NAMES if name.startswith(("tools/", "sampling/", "reward_std"))}
    assert len(names) == 4
    names |= {"tools/failure_frequency", "frac_reward_zero_std", "entropy"}
    assert [name for name in sorted(names) if f'["{name}"]' not in source] == []
