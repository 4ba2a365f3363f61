"""A champion is replaced only by a better model, on the same tasks."""

from __future__ import annotations

import json

import pytest
from codedance.pipelines.analysis.model_comparison import (
    compare,
    read_results,
    sign_test,
    write_results,
)

from ..makers import make_request, make_task, make_trajectory


def outcomes(*right):
    return {f"task-{n}": float(is_right) for n, is_right in enumerate(right)}


def test_sign_test_by_hand():
    assert sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(6, 0) == pytest.approx(2 / 64)
    assert sign_test(0, 0) == 1.0
    assert sign_test(3, 3) == 1.0
    assert sign_test(600, 500) == pytest.approx(0.0028, abs=2e-4)


def test_better_on_six_and_worse_on_none_is_better():
    champion = outcomes(*[0] * 6, *[1] * 20)
    assert compare(champion, outcomes(*[1] * 26)).is_better
    assert not compare(champion, outcomes(*[1] * 5, 0, *[1] * 20)).is_better


def test_an_equal_or_worse_model_does_not_replace_the_champion():
    champion = outcomes(*[1] * 15, *[0] * 15)
    assert not compare(champion, champion).is_better
    assert not compare(champion, outcomes(*[0] * 30)).is_better


def test_other_tasks_cannot_be_compared():
    verdict = compare(outcomes(*[0] * 40), outcomes(*[1] * 20))
    assert not verdict.is_better
    assert verdict.reason == "not comparable: 20 tasks in common, of 40 and 20"
    assert not compare({}, {}).is_better


def test_results_are_the_greedy_ones_by_task(store, tmp_path):
    run = store.lineage.begin(make_request("evaluate"))
    tasks = [make_task(n) for n in range(2)]
    for phase, accuracy in (("sft/greedy", 0.0), ("grpo/greedy", 1.0), ("grpo/sampled", 0.0)):
        made = [make_trajectory(task, accuracy=accuracy) for task in tasks]
        store.add_trajectories(tasks, made, stage_run=run.id, phase=phase)
    path = tmp_path / "held_out.json"
    write_results(store, run, path)
    keys = set(store.add_tasks(tasks).values())
    assert read_results(path) == {
        "sft": dict.fromkeys(keys, 0.0),
        "grpo": dict.fromkeys(keys, 1.0),
    }
    assert json.loads(path.read_text())["run"] == run.id
