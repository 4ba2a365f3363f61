"""Levels, gaps, intervals and verdicts, by hand."""

import math

import pytest

from experiments.paper.figures import Judged, gap
from experiments.paper.verdicts import Interval, decide, student

from .judgements import judged


def test_levels_and_gaps_exclude_lost_episodes():
    nan = math.nan
    first = judged([1, 0, nan, 1], calls=[2, 0, 1, 1], ran=[1, 0, 1, 1])
    second = judged([0, 0, 1, nan], calls=[0, 1, 0, 0])
    assert first.level("accuracy") == pytest.approx(2 / 3)
    assert first.level("execution_success") == pytest.approx(2 / 3)
    assert first.level("tool_calls") == pytest.approx(1.0)
    apart = gap(first, second, "accuracy")
    assert (apart.mean, apart.better, apart.worse) == (0.5, 1, 0)
    assert gap(first, second, "tool_calls").mean == pytest.approx(0.5)


def test_tasks_are_selected_by_difficulty_or_family():
    one = judged([1, 0, 1], difficulties=["easy", "hard", "hard"], families=["bars", "bars", "tag"])
    assert one.level("accuracy", ["hard"]) == 0.5
    assert one.level("accuracy", ["tag"]) == 1.0
    assert math.isnan(one.level("accuracy", ["maze"]))
    assert one.level("accuracy", ["bars"], difficulty="easy") == 1.0
    assert math.isnan(one.level("accuracy", ["tag"], difficulty="easy"))


def test_arms_on_other_tasks_are_never_paired():
    other = Judged(("x",), ("hard",), ("bars",), judged([1]).values, 0)
    with pytest.raises(ValueError, match="different tasks"):
        gap(judged([1]), other, "accuracy")


def test_student_by_hand():
    found = student([0.02, 0.04, 0.03, 0.05, 0.06], confidence=0.95)
    # mean 0.04, standard deviation 0.015811, over the root of 5: 0.0070711; t(4, 0.975) = 2.776445
    assert found.mean == pytest.approx(0.04)
    assert found.low == pytest.approx(0.04 - 2.776445 * 0.00707107, abs=1e-7)
    assert found.p == pytest.approx(0.0024063, abs=1e-6)  # t = 32 ** 0.5, 4 degrees
    assert math.isnan(student([0.1], confidence=0.95).low)
    assert student([0.1, 0.1], confidence=0.95).low == pytest.approx(0.1)


def interval(low, high, count=5):
    return Interval(count, (low + high) / 2, low, high, 0.5)


@pytest.mark.parametrize(
    ("low", "high", "count", "verdict"),
    [
        (0.01, 0.03, 5, "holds"),
        (-0.01, 0.03, 5, "not shown"),
        (-0.03, -0.01, 5, "does not hold"),
        (0.01, 0.03, 4, "not yet decided"),
    ],
)
def test_a_verdict_needs_all_seeds_and_the_whole_interval(low, high, count, verdict):
    assert decide(interval(low, high, count), above=0.0, planned=5) == verdict
