"""The alarms in a real trainer of transformers, whose logs have TRL's names."""

from __future__ import annotations

import pytest
import torch
from codedance.policies.training.grpo.alarms import AlarmConfig
from codedance.policies.training.trainer_callback import AlarmCallback
from codedance.policies.training.watching import AlarmWatch
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from .test_watching import as_trl, recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainer
COLLAPSED = [as_trl(step) for step in recorded("calls_punished")]
HEALTHY = [as_trl(step) for step in recorded("healthy")]


class Model(torch.nn.Module):
    """One weight, which any loss can train."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, **_):
        return {"loss": (self.weight * x).square().mean()}


class Logging(Trainer):
    """Adds metrics to each log, as TRL's trainers do."""

    series: list

    def log(self, logs, *args):
        step = self.state.global_step
        super().log({**logs, **(self.series[step - 1] if "loss" in logs else {})}, *args)


def train(folder, series, *, stop_at=(), steps=30, resume=False):
    """Train and return the alarms and the last step."""
    found = []
    watch = AlarmWatch(AlarmConfig(window=5), on_alarm=found.append)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        logging_steps=1,
        save_steps=steps,
        per_device_train_batch_size=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Logging(
        Model(),
        arguments,
        train_dataset=[{"x": torch.ones(1)}] * 4,
        callbacks=[AlarmCallback(watch, stop_at=stop_at)],
    )
    trainer.series = series
    trainer.train(resume_from_checkpoint=resume)
    return [(alarm.name, alarm.step) for alarm in found], trainer.state.global_step


def test_a_trainer_reports_a_collapse_once_and_nothing_of_a_healthy_run(tmp_path):
    found, last = train(tmp_path / "collapsed", COLLAPSED)
    assert [name for name, _ in found].count("tool_calls") == 1
    assert last == 30
    assert train(tmp_path / "healthy", HEALTHY)[0] == []


def test_a_named_alarm_ends_the_training_at_its_step(tmp_path):
    found, last = train(tmp_path, COLLAPSED, stop_at=("tool_calls",))
    assert found[-1] == ("tool_calls", last)
    assert last < 30


@pytest.mark.slow
def test_a_resumed_training_compares_with_the_steps_before(tmp_path):
    whole, _ = train(tmp_path / "whole", COLLAPSED)
    collapse = dict(whole)["tool_calls"]
    first, _ = train(tmp_path / "parts", COLLAPSED, steps=collapse - 1)
    second, _ = train(tmp_path / "parts", COLLAPSED, resume=True)
    assert first + second == whole


def test_only_the_first_process_reports():
    found = []
    callback = AlarmCallback(AlarmWatch(AlarmConfig(constant_steps=1), on_alarm=found.append))
    for is_first in (False, True):
        state = TrainerState(global_step=1, is_world_process_zero=is_first)
        callback.on_log(None, state, TrainerControl(), {"reward": 1.0, "reward_std": 0.0})
        assert len(found) == int(is_first)
