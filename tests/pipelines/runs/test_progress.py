"""Progress is readable in logs, and repeated metrics of a step count once."""

from __future__ import annotations

import io
import re
import time

import pytest
from codedance.pipelines.runs import progress
from codedance.pipelines.runs.progress import (
    PlainProgress,
    RichProgress,
    format_figures,
    format_seconds,
    open_progress,
)
from codedance.pipelines.stages.seeding import draw_indices, spread_indices
from codedance.pipelines.tracking.lines import LineWriter
from codedance.pipelines.tracking.metrics_file import append_metrics, read_metrics
from rich.console import Console
from sandbox.hostile_text import HOSTILE, controls_in


def plain_lines(monkeypatch, steps, *, total=100, alarms=()):
    """Return the output of a plain bar whose steps are reached at these seconds."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with PlainProgress(stream).bar("sft", total) as bar:
        for alarm in alarms:
            bar.ring(alarm)
        for clock[0], done in steps:
            bar.reach(done, note=f"loss {done}")
    return stream.getvalue().splitlines()


def test_plain_lines_are_few_and_the_last_step_is_shown(monkeypatch):
    assert plain_lines(monkeypatch, [(step / 100, step) for step in range(1, 101)]) == [
        "sft                    100/100  1 s so far, 0 s left  100/s  loss 100"
    ]


def test_a_plain_line_is_printed_every_ten_seconds(monkeypatch):
    lines = plain_lines(monkeypatch, [(2.0 * step, step) for step in range(1, 13)])
    assert lines == [
        "sft                    5/100  10 s so far, 3:10 left  2.0 s each  loss 5",
        "sft                    10/100  20 s so far, 3:00 left  2.0 s each  loss 10",
    ]


def test_rate_and_time_left_are_estimated_from_the_last_minute(monkeypatch):
    slow = [(30.0 * step, step) for step in range(1, 11)]
    quick = [(300.0 + step, 10 + step) for step in range(1, 81)]
    assert "  1.0/s  " in plain_lines(monkeypatch, slow + quick)[-1]
    assert "30.0 s each" in plain_lines(monkeypatch, slow)[-1]


def test_steps_longer_than_the_window_have_a_rate(monkeypatch):
    lines = plain_lines(monkeypatch, [(90.0 * step, step) for step in range(1, 5)])
    assert lines[-1].endswith("2:24:00 left  90.0 s each  loss 4")


def test_steps_of_an_earlier_process_do_not_count_in_the_rate(monkeypatch):
    (line,) = plain_lines(monkeypatch, [(1.0, 90), (11.0, 91)])
    assert "1:30 left  10.0 s each" in line


def test_alarms_stay_visible(monkeypatch):
    (line,) = plain_lines(monkeypatch, [(1.0, 100)], alarms=["entropy", "accuracy", "entropy"])
    assert line.endswith("loss 100  ALARMS: entropy (2), accuracy")


def drawn(width):
    """Return the output of a bar at its end in a terminal of this width."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    shown = RichProgress(console)
    with shown.bar("grpo", 150) as bar:
        bar.reach(11, note="reward 0.612  accuracy 0.781")
        time.sleep(0.01)
        bar.reach(12, note="reward 0.851  accuracy 0.971  tool_calls/mean 0.49  entropy 0.0139")
        bar.ring("entropy")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    return [line.strip("\r ") for line in plain.splitlines()]


def test_a_terminal_shows_rate_time_left_figures_and_alarms_in_80_columns():
    lines = drawn(80)
    bar = next(line for line in reversed(lines) if line.startswith("grpo"))
    assert "12/150" in bar
    assert re.search(r"left  [\d.]+(/s| s each)$", bar)
    assert all(len(line) <= 80 for line in lines)
    assert "reward 0.851  accuracy 0.971  tool_calls/mean 0.49  entropy 0.0139" in lines
    assert "ALARMS: entropy" in lines


@pytest.mark.parametrize(
    ("is_terminal", "term", "kind"),
    [(True, "xterm", RichProgress), (True, "dumb", PlainProgress), (False, "xterm", PlainProgress)],
)
def test_bars_are_drawn_only_in_suitable_terminals(monkeypatch, is_terminal, term, kind):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setenv("TERM", term)
    assert type(open_progress()) is kind


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (59.6, "1:00"), (185, "3:05"), (3723, "1:02:03")]
)
def test_times_are_short(seconds, text):
    assert format_seconds(seconds) == text


def test_unknown_figures_are_omitted():
    assert format_figures({"loss": 0.31234, "kl": None, "lr": 0.001}) == "loss 0.312  lr 0.001"


def test_the_later_record_of_a_repeated_step_counts(tmp_path):
    for step, loss in ((1, 3.0), (2, 2.0), (2, 1.5), (3, float("nan"))):
        append_metrics(LineWriter(), tmp_path, step, {"loss": loss, "lr": 0.1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert read_metrics(tmp_path) == {
        "loss": [(1, 3.0), (2, 1.5)],
        "lr": [(1, 0.1), (2, 0.1), (3, 0.1)],
    }


def test_missing_metrics_are_not_an_error(tmp_path):
    assert read_metrics(tmp_path) == {}


def test_draws_depend_only_on_the_seed():
    assert draw_indices(100, 5, seed=1) == draw_indices(100, 5, seed=1)
    assert draw_indices(100, 5, seed=1) != draw_indices(100, 5, seed=2)
    assert len(set(draw_indices(100, 50, seed=1))) == 50
    assert draw_indices(4, 9, seed=1) == [0, 1, 2, 3]


def test_held_out_indices_are_evenly_spaced():
    assert spread_indices(2000, 4) == [0, 500, 1000, 1500]
    assert spread_indices(3, 5) == [0, 1, 2]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_in_progress_can_control_the_terminal(text):
    stream = io.StringIO()
    plain = PlainProgress(stream)
    rich = RichProgress(Console(file=stream, width=200, color_system=None, force_terminal=False))
    for display in (plain, rich):
        display.say(text)
        with display.bar(text, 1) as bar:
            bar.ring(text)
            bar.reach(1, note=text)
    assert controls_in(stream.getvalue()) == []
