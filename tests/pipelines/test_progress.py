"""Progress is readable in logs, and figures by step survive being written twice."""

from __future__ import annotations

import io

import pytest
from codedance.pipelines.metrics_file import append_metrics, read_metrics
from codedance.pipelines.progress import PlainProgress, format_figures, format_seconds
from codedance.pipelines.seeding import draw_indices, spread_indices


def test_plain_lines_are_few_and_the_last_step_is_shown():
    stream = io.StringIO()
    with PlainProgress(stream).bar("sft", 100) as bar:
        for step in range(1, 101):
            bar.reach(step, note=f"loss {step}")
    assert stream.getvalue().splitlines() == [
        "sft                    100/100  0 s so far, 0 s left  loss 100"
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (59.6, "1:00"), (185, "3:05"), (3723, "1:02:03")]
)
def test_times_are_short(seconds, text):
    assert format_seconds(seconds) == text


def test_figures_leave_out_what_is_unknown():
    assert format_figures({"loss": 0.31234, "kl": None, "lr": 0.001}) == "loss 0.312  lr 0.001"


def test_step_written_twice_counts_once_and_the_later_one(tmp_path):
    for step, loss in ((1, 3.0), (2, 2.0), (2, 1.5), (3, float("nan"))):
        append_metrics(tmp_path, step, {"loss": loss, "lr": 0.1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert read_metrics(tmp_path) == {
        "loss": [(1, 3.0), (2, 1.5)],
        "lr": [(1, 0.1), (2, 0.1), (3, 0.1)],
    }


def test_no_figures_is_no_error(tmp_path):
    assert read_metrics(tmp_path) == {}


def test_draws_depend_on_the_seed_only():
    assert draw_indices(100, 5, seed=1) == draw_indices(100, 5, seed=1)
    assert draw_indices(100, 5, seed=1) != draw_indices(100, 5, seed=2)
    assert len(set(draw_indices(100, 50, seed=1))) == 50
    assert draw_indices(4, 9, seed=1) == [0, 1, 2, 3]


def test_held_out_indices_are_evenly_apart():
    assert spread_indices(2000, 4) == [0, 500, 1000, 1500]
    assert spread_indices(3, 5) == [0, 1, 2]
