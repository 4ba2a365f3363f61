import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codedance.envs.types import Trajectory
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.loop import train_grpo
from codedance.policies.training.training_state import TrainingInterrupted
from codedance.sandbox.types import Sandbox
from transformers import AutoModelForImageTextToText

from ..players import AbsentSandbox, task

TASKS = [task(index) for index in range(7)]
CONFIG = GRPOConfig(
    steps=4,
    tasks_per_step=2,
    num_generations=4,
    learning_rate=1e-3,
    max_new_tokens=8,
    max_redraws=0,
    save_every=2,
    reward="outcome",
    scale_rewards="group",
)


def run(start: Path, folder: Path, sandbox: Sandbox, config: GRPOConfig = CONFIG, **options):
    log: list[tuple[int, dict[str, float]]] = []
    final = train_grpo(
        start,
        options.pop("tasks", TASKS),
        config,
        sandbox=sandbox,
        folder=folder,
        on_step=lambda step, metrics: log.append((step, dict(metrics))),
        **options,
    )
    return final, log


def same(one: Path, other: Path) -> bool:
    first, second = (
        AutoModelForImageTextToText.from_pretrained(folder).state_dict() for folder in (one, other)
    )
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("letters")
def test_stopped_run_resumes_to_the_same_weights_and_metrics(tiny_folder, tmp_path, sandbox):
    straight, log = run(tiny_folder, tmp_path / "straight", sandbox)
    seen: list[tuple[int, dict[str, float]]] = []
    with pytest.raises(TrainingInterrupted) as caught:
        train_grpo(
            tiny_folder,
            TASKS,
            CONFIG,
            sandbox=sandbox,
            folder=tmp_path / "cut",
            on_step=lambda step, metrics: seen.append((step, dict(metrics))),
            should_stop=lambda: len(seen) == 1,
        )
    assert caught.value.step == 1
    resumed, rest = run(tiny_folder, tmp_path / "cut", sandbox)
    assert seen + rest == log
    assert same(straight, resumed)
    assert not same(straight, tiny_folder)


@pytest.mark.usefixtures("letters")
def test_killed_run_resumes_from_its_last_saved_step(tiny_folder, tmp_path, sandbox):
    class Killed(BaseException):
        pass

    def die(step: int, _: object) -> None:
        if step == 3:
            raise Killed

    straight, log = run(tiny_folder, tmp_path / "straight", sandbox)
    with pytest.raises(Killed):
        train_grpo(
            tiny_folder, TASKS, CONFIG, sandbox=sandbox, folder=tmp_path / "cut", on_step=die
        )
    resumed, rest = run(tiny_folder, tmp_path / "cut", sandbox)
    assert rest == log[2:]
    assert same(straight, resumed)


@pytest.mark.slow
@pytest.mark.usefixtures("letters")
def test_rewarded_text_becomes_more_frequent(tiny_folder, tmp_path, sandbox):
    config = replace(CONFIG, steps=15, tasks_per_step=4, num_generations=8, learning_rate=5e-3)
    _, log = run(tiny_folder, tmp_path, sandbox, config)
    rewards = [metrics["rewards/letters/mean"] for _, metrics in log]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2


@pytest.mark.usefixtures("letters")
def test_metrics_are_finite_and_describe_the_whole_step(tiny_folder, tmp_path, sandbox):
    reported: list[tuple[int, list[Trajectory]]] = []
    config = replace(CONFIG, steps=2, beta=0.05, num_iterations=2)
    _, log = run(
        tiny_folder,
        tmp_path,
        sandbox,
        config,
        on_trajectories=lambda step, found: reported.append((step, list(found))),
    )
    metrics = log[0][1]
    wanted = {
        "reward",
        "rewards/accuracy/mean",
        "rewards/format/mean",
        "rewards/letters/mean",
        "rewards/tool_sequence/mean",
        "rewards/tool_turn/mean",
        "accuracy",
        "tool_calls/mean",
        "entropy",
        "kl",
        "clip_ratio",
        "grad_norm",
        "lr",
        "loss",
        "completion_length/mean",
        "infrastructure_share",
        "groups_lost",
        "sampling_logp_difference/max",
    }
    assert wanted <= metrics.keys()
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["sampling_logp_difference/max"] < 1e-4
    assert metrics["completion_length/mean"] <= 8
    assert [(step, len(found)) for step, found in reported] == [(1, 8), (2, 8)]
    mean = sum(one.reward or 0.0 for one in reported[0][1]) / 8
    assert metrics["reward"] == pytest.approx(mean)
    assert metrics["rewards/format/mean"] == pytest.approx(-0.2)  # a random model never answers


def test_groups_of_equals_change_no_weight(tiny_folder, tmp_path, sandbox):
    config = replace(CONFIG, steps=1, max_redraws=1)
    final, log = run(tiny_folder, tmp_path, sandbox, config)
    assert same(final, tiny_folder)
    metrics = log[0][1]
    assert (metrics["groups"], metrics["groups_redrawn"], metrics["rows"]) == (4, 2, 0)
    assert metrics["frac_reward_zero_std"] == 1.0


@pytest.mark.usefixtures("letters")
def test_state_of_other_tasks_is_rejected(tiny_folder, tmp_path, sandbox):
    run(tiny_folder, tmp_path, sandbox, replace(CONFIG, steps=1))
    with pytest.raises(ValueError, match="another run"):
        run(tiny_folder, tmp_path, sandbox, replace(CONFIG, steps=1), tasks=TASKS[1:])


def test_an_empty_list_of_tasks_is_rejected(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match="at least one task"):
        run(tiny_folder, tmp_path, AbsentSandbox(), tasks=[])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_generations": 1}, "compared with its siblings"),
        ({"temperature": 0.0}, "greedy siblings"),
        ({"steps": 0}, "at least 1"),
        ({"max_redraws": -1}, "at least 0"),
        ({"reward": "batt"}, "did you mean 'bat'"),
    ],
)
def test_settings_without_learning_are_rejected(setting: dict, message: str):
    with pytest.raises(ValueError, match=message):
        GRPOConfig(**setting)


@pytest.mark.usefixtures("letters")
def test_the_old_scores_are_those_before_the_first_of_several_updates(
    tiny_folder, tmp_path, sandbox
):
    config = replace(CONFIG, steps=2, num_iterations=3, learning_rate=1e-2)
    _, log = run(tiny_folder, tmp_path, sandbox, config)
    for _, metrics in log:
        assert metrics["sampling_logp_difference/max"] < 1e-4
        assert metrics["approx_kl"] > 1e-4  # of the third update, from the weights before the first


@pytest.mark.usefixtures("letters")
def test_dropout_is_no_mismatch(tiny_folder, tmp_path, sandbox):
    config = replace(CONFIG, steps=2, lora_r=4, lora_dropout=0.5, learning_rate=1e-1)
    _, log = run(tiny_folder, tmp_path, sandbox, config)
    assert all(metrics["sampling_logp_difference/max"] < 1e-4 for _, metrics in log)
    assert log[1][1]["approx_kl"] > 1e-6  # adapters, and so their dropout, do something by then


@pytest.mark.usefixtures("letters")
def test_off_policy_masking_is_counted(tiny_folder, tmp_path, sandbox):
    config = replace(CONFIG, steps=1, off_policy_mask_threshold=0.5)
    _, log = run(tiny_folder, tmp_path, sandbox, config)
    assert log[0][1]["off_policy_masked_share"] == 0.0
