"""Metrics of a step from its trajectories and the clock."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from codedance.envs.types import Difficulty
from codedance.pipelines.charts.figures import standalone_chart, write_figures
from codedance.pipelines.stages.step_figures import StepFigures, latency_figures
from codedance.pipelines.tracking.system_metrics import PERIOD_SECONDS, Meter, metered, read_gpus
from codedance.pipelines.tracking.tracker import Tracker

from ..makers import make_lost, make_task, make_trajectory


class Clock:
    def __init__(self, *times):
        self._times = iter(times)

    def __call__(self):
        return next(self._times)


def test_accuracy_and_calls_are_reported_by_family_and_difficulty():
    easy, hard = make_task(0), make_task(1, family="bars", difficulty=Difficulty.HARD)
    made = [
        make_trajectory(easy, calls=2),
        make_trajectory(easy, accuracy=0.0, calls=0),
        make_trajectory(hard, accuracy=0.0, calls=1),
        make_lost(hard),
    ]
    figures = StepFigures(Clock(0.0))
    figures.sampled({task.id: task for task in (easy, hard)}, made)
    assert figures.results() == {
        "trajectories": 4.0,
        "accuracy/difficulty/easy": 0.5,
        "tool_calls/difficulty/easy": 1.0,
        "accuracy/difficulty/hard": 0.0,
        "tool_calls/difficulty/hard": 1.0,
        "accuracy/family/bars": 0.0,
        "tool_calls/family/bars": 1.0,
        "accuracy/family/count": 0.5,
        "tool_calls/family/count": 1.0,
    }


def test_rates_refer_to_the_time_since_the_last_step():
    task = make_task()
    figures = StepFigures(Clock(10.0, 13.0, 15.0))
    assert figures.rates({}) == {}, "the start of the first step is unknown"
    figures.sampled({task.id: task}, [make_trajectory(task, calls=2)] * 5)
    rates = figures.rates({})
    assert rates["time/step_seconds"] == 5.0
    assert rates["time/sampling_seconds"] == 3.0
    assert rates["time/update_seconds"] == 2.0
    assert rates["trajectories_per_second"] == 1.0
    assert rates["tokens_per_second"] == 2.0  # two own tokens in each of five
    assert rates["sandbox/latency_ms/p50"] == rates["sandbox/latency_ms/max"] == 250.0
    assert figures.results() == {}


def test_supervised_training_reports_its_tokens_per_second():
    figures = StepFigures(Clock(0.0, 2.0))
    figures.rates({"tokens": 50.0})
    assert figures.rates({"tokens": 100.0}) == {"time/step_seconds": 2.0, "tokens_per_second": 50.0}


def test_latencies_are_quantiles_in_milliseconds():
    assert latency_figures([]) == {}
    figures = latency_figures([0.001 * n for n in range(101)])
    for name, value in (("p50", 50.0), ("p95", 95.0), ("max", 100.0)):
        assert figures[f"sandbox/latency_ms/{name}"] == pytest.approx(value)


def test_system_metrics_have_mlflows_own_names(tmp_path):
    sample = Meter(tmp_path).sample()
    assert all(name.startswith("system/") for name in sample)
    assert 0.0 < sample["system/system_memory_usage_percentage"] <= 100.0
    assert sample["system/process_memory_megabytes"] > 1.0
    assert sample["system/disk_available_megabytes"] > 0.0


def test_several_gpus_are_distinguished():
    found = read_gpus("0, 97, 40210, 81559, 512.30\n1, 3, 5, 81559, 70.00\nnonsense\n")
    assert found["gpu_0_utilization_percentage"] == 97.0
    assert found["gpu_1_power_usage_watts"] == 70.0
    assert len(found) == 6


def test_a_stage_shorter_than_the_period_is_not_delayed(home):
    tracker = Tracker(home.stages)
    before = os.times().elapsed
    with metered(tracker, "run", home.root):
        pass
    assert os.times().elapsed - before < PERIOD_SECONDS / 2


def test_curves_become_separate_images(tmp_path):
    points = [(step, step / 10) for step in range(20)]
    figures = {
        "rewards/accuracy/mean": points,
        "rewards/format/mean": points,
        "accuracy/difficulty/easy": points,
    }
    written = write_figures(tmp_path, figures)
    assert [path.name for path in written] == ["reward-terms.svg", "accuracy-by-difficulty.svg"]
    for path in written:
        root = ElementTree.fromstring(Path(path).read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert ">accuracy</text>" in written[0].read_text(encoding="utf-8")


def test_a_name_cannot_break_an_image():
    text = standalone_chart("a < b & c", {"<x>": [(0, 1.0)], "y": [(0, 2.0)]})
    assert "a < b & c" in "".join(ElementTree.fromstring(text).itertext())
    assert standalone_chart("nothing", {"a": []}) == ""
