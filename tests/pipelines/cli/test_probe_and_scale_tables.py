"""The tables of ``codedance probe`` and ``scale`` fit a terminal and show the results."""

from __future__ import annotations

import math

from codedance.pipelines.cli.analysis.probe import probe_lines
from codedance.pipelines.cli.analysis.scale import scale_figure, scale_lines
from codedance.policies.analysis.probe import ProbeFigures
from codedance.policies.analysis.scaling import ScalingPoint

POINTS = [ScalingPoint("turns", 6, 0.5, 58.0, 42), ScalingPoint("majority", 8, 1.0, 464.0, 42)]


def test_probe_shows_dependence_and_crops():
    figures = [ProbeFigures("withheld", 8, 0.5, 0.125, 6.56)]
    lines = probe_lines(figures, [True, False])
    assert lines[2].split() == ["withheld", "8", "50.0%", "12.5%", "0.75", "6.56"]
    assert lines[-1] == "1 of 2 crops contained the true region"
    assert max(map(len, lines)) <= 80


def test_probe_omits_unknown_figures():
    (_, _, row, *_) = probe_lines([ProbeFigures("swapped", 2, 0.0, 0.0, math.nan)], [])
    assert row.split()[-2:] == ["-", "-"]
    assert probe_lines([], []) == ["no call was made: there is nothing to ablate"]


def test_scale_shows_a_row_and_a_bar_per_setting_and_a_line_per_method():
    lines = scale_lines(POINTS)
    assert lines[1].split() == ["turns", "6", "50.0%", "58", "42", "#" * 15]
    assert max(map(len, lines)) <= 80
    page = scale_figure(POINTS)
    assert page.count("<polyline") == 2
    assert "majority" in page


def test_scale_reports_no_figure_if_all_episodes_were_lost():
    lost = ScalingPoint("second look", 2, None, None, 0)
    lines = scale_lines([*POINTS, lost])
    assert lines[-1].split() == ["second", "look", "2", "-", "-", "0"]
    page = scale_figure([*POINTS, lost])
    assert page.count("<polyline") == 2
    assert "second look" not in page
