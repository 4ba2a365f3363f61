"""Intervals and paired differences, compared with figures calculated by hand."""

from __future__ import annotations

import math

import pytest
from codedance.pipelines.analysis.statistics import paired_difference, rate_of, wilson


def test_wilson_interval_of_eight_in_ten():
    rate = wilson(8, 10)
    # centre (0.8 + 3.8415/20) / 1.38415 = 0.71674, half 0.22657
    assert rate.share == 0.8
    assert rate.low == pytest.approx(0.49016, abs=1e-4)
    assert rate.high == pytest.approx(0.94331, abs=1e-4)


def test_wilson_stays_within_bounds_at_both_ends():
    assert wilson(0, 10).low == 0.0
    assert wilson(0, 10).high == pytest.approx(0.27753, abs=1e-4)
    assert wilson(10, 10).high == pytest.approx(1.0, abs=1e-12)


def test_rate_of_nothing_is_not_a_number():
    assert math.isnan(rate_of([]).share)


def test_paired_difference_counts_items():
    gap = paired_difference([0, 0, 1, 1], [1, 1, 1, 0])
    assert (gap.mean, gap.count, gap.better, gap.worse) == (0.25, 4, 2, 1)


def test_bootstrap_bounds_match_the_normal_ones_on_many_items():
    # 300 better, 100 worse of 2000: mean 0.1, variance 0.2 - 0.01, standard error 0.009747
    first = [0] * 300 + [1] * 100 + [1] * 1600
    second = [1] * 300 + [0] * 100 + [1] * 1600
    gap = paired_difference(first, second)
    assert gap.low == pytest.approx(0.1 - 1.96 * 0.009747, abs=0.002)
    assert gap.high == pytest.approx(0.1 + 1.96 * 0.009747, abs=0.002)


def test_equal_results_have_no_difference():
    gap = paired_difference([1, 0, 1], [1, 0, 1])
    assert (gap.low, gap.mean, gap.high) == (0.0, 0.0, 0.0)


def test_unpaired_items_are_rejected():
    with pytest.raises(ValueError, match="got 1 and 2"):
        paired_difference([1], [1, 0])


def test_without_items_there_is_no_figure():
    assert math.isnan(paired_difference([], []).mean)
