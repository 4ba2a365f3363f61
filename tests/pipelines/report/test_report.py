"""The report shows text of a model without executing it."""

from __future__ import annotations

import html
import re

import pytest
from codedance.envs.types import Action, Ending, Turn
from codedance.pipelines.analysis.results import summarise
from codedance.pipelines.charts.chart import line_chart, line_picture, moving_average
from codedance.pipelines.report.gallery import choose_sections, render_episode, render_sections
from codedance.pipelines.report.page import POLICY, render_charts, render_page
from codedance.pipelines.viewer.page import render_viewer

from ..makers import make_request, make_task, make_trajectory

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"></p>\'">&'


def hostile_episode():
    task = make_task(question=HOSTILE, answer=HOSTILE, family=HOSTILE)
    turns = (
        Turn(f"<think>{HOSTILE}</think>", Action("code", HOSTILE)),
        Turn(HOSTILE, Action("malformed", HOSTILE, HOSTILE)),
    )
    trajectory = make_trajectory(task, answer=HOSTILE, turns=turns, ending=Ending.MALFORMED)
    return task, trajectory


def test_model_text_never_becomes_markup():
    task, trajectory = hostile_episode()
    page = render_episode(trajectory, task, "grpo/greedy")
    assert "<script" not in page
    assert 'onerror="' not in page
    assert HOSTILE in html.unescape(page)
    tags = set(re.findall(r"<(\w+)", page))
    assert tags <= {"article", "header", "span", "p", "img", "pre", "b"}
    assert page.count("<img") == len(task.images)


def test_text_in_other_fields_never_becomes_markup(store):
    run = store.lineage.begin(make_request("evaluate"))
    lines = {HOSTILE: [(1, 0.0), (2, 1.0)], "b": [(1, 1.0), (2, 0.0)]}
    for part in (
        line_chart(HOSTILE, lines),
        line_picture(HOSTILE, lines),
        render_charts({}, [], [HOSTILE]),
        render_page(run, summarise(store, run), [run], charts=HOSTILE, gallery="", emergence=""),
        render_viewer(HOSTILE, {}, []),
    ):
        assert HOSTILE in html.unescape(part)
        assert "<script>alert" not in part
        assert 'onerror="' not in part


def test_page_forbids_scripts_and_needs_no_other_file(store):
    run = store.lineage.begin(make_request("evaluate", parameters={"suite": HOSTILE}))
    task, trajectory = hostile_episode()
    store.add_trajectories([task], [trajectory], stage_run=run.id, phase="grpo/greedy")
    gallery = render_sections(store, choose_sections(store.episodes(run.id)))
    page = render_page(run, summarise(store, run), [run], charts="", gallery=gallery)
    assert f'content="{POLICY}"' in page
    assert "default-src 'none'" in POLICY
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_sections_contain_right_wrong_and_needless_episodes(store):
    run = store.lineage.begin(make_request("evaluate"))
    tasks = [make_task(n) for n in range(3)]
    given = [
        make_trajectory(tasks[0], calls=2),
        make_trajectory(tasks[1], calls=0),
        make_trajectory(tasks[2], calls=0, accuracy=0.0),
    ]
    store.add_trajectories(tasks, given, stage_run=run.id, phase="grpo/greedy")
    found = choose_sections(store.episodes(run.id))
    assert {section.title: [e.task_id for e in section.episodes] for section in found} == {
        "Right, with tools": [tasks[0].id],
        "Right at a glance": [tasks[1].id],
        "Wrong": [tasks[2].id],
        "Needless tools": [tasks[0].id],
    }


def test_a_section_is_spread_over_families(store):
    run = store.lineage.begin(make_request("evaluate"))
    tasks = [make_task(n, family=f"f{n // 20}") for n in range(60)]
    given = [make_trajectory(t, accuracy=0.0, calls=0) for t in tasks]
    store.add_trajectories(tasks, given, stage_run=run.id, phase="grpo/greedy")
    wrong = next(s for s in choose_sections(store.episodes(run.id)) if s.title == "Wrong")
    assert [sum(e.family == f for e in wrong.episodes) for f in ("f0", "f1", "f2")] == [2, 2, 2]


def test_chart_of_nothing_is_nothing():
    assert line_chart("empty", {"a": []}) == ""


def test_chart_draws_a_line_for_every_series():
    svg = line_chart("two", {"a": [(1, 0.0), (2, 1.0)], "b": [(1, 1.0), (2, 0.0)]})
    assert svg.count("<polyline") == 2
    assert svg.count('class="key"') == 2


@pytest.mark.parametrize("points", [[(1, 0.0)], [(1, 5.0), (2, 5.0)], [(1, -3.0), (9, -3.5)]])
def test_chart_supports_flat_lines_and_single_points(points):
    svg = line_chart("flat", {"a": points})
    assert "nan" not in svg
    assert "inf" not in svg.replace("infra", "")


def test_lines_are_smoothed_over_the_previous_points():
    assert moving_average([(1, 1.0), (2, 3.0), (3, 8.0)], 2) == [(1, 1.0), (2, 2.0), (3, 5.5)]


def test_charts_omit_missing_measurements():
    page = render_charts({"sft": {"loss": [(1, 2.0), (2, 1.0)]}}, [])
    assert "SFT: loss" in page
    assert "GRPO" not in page
