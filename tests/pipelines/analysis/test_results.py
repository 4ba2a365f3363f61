"""An evaluation's figures: by group, masked, paired."""

from __future__ import annotations

import math

import pytest
from codedance.envs.types import Difficulty
from codedance.pipelines.analysis.results import (
    difference_lines,
    lost_lines,
    summarise,
    table_head,
    table_rows,
)
from codedance.pipelines.cli.output import _print_plain

from ..makers import make_lost, make_request, make_task, make_trajectory


@pytest.fixture
def evaluation(store):
    """Two easy and two hard tasks; SFT solves the easy ones with a call, GRPO all of them."""
    run = store.lineage.begin(make_request("evaluate", parameters={"suite": "toy"}))
    easy = [make_task(n) for n in range(2)]
    hard = [make_task(n, family="maze", difficulty=Difficulty.HARD) for n in range(2, 4)]
    tasks = [*easy, *hard]
    sft = [make_trajectory(t, accuracy=1.0, calls=1) for t in easy]
    sft += [make_trajectory(hard[0], accuracy=0.0, calls=2, failed=1), make_lost(hard[1])]
    grpo = [make_trajectory(t, accuracy=1.0, calls=0) for t in easy]
    grpo += [make_trajectory(t, accuracy=1.0, calls=1) for t in hard]
    for phase, trajectories in (("sft/greedy", sft), ("grpo/greedy", grpo)):
        store.add_trajectories(tasks, trajectories, stage_run=run.id, phase=phase)
    return summarise(store, run)


def test_groups_are_all_then_difficulties_then_families(evaluation):
    assert evaluation.groups == ("all", "easy", "hard", "count", "maze")
    assert evaluation.policies == ("sft", "grpo")
    assert evaluation.modes == ("greedy",)


def test_lost_episodes_are_masked_and_counted(evaluation):
    cell = evaluation.cells["sft/greedy", "all"]
    assert (cell.accuracy.hits, cell.accuracy.count, cell.lost) == (2, 3, 1)
    assert lost_lines(evaluation) == [
        "sft/greedy: 1 episodes lost to our infrastructure, left out of every figure; the same "
        "command reruns them"
    ]


def test_tool_calls_and_execution_success_by_difficulty(evaluation):
    easy = evaluation.cells["sft/greedy", "easy"]
    hard = evaluation.cells["sft/greedy", "hard"]
    assert (easy.tool_calls, easy.execution_success) == (1.0, 1.0)
    assert (hard.tool_calls, hard.execution_success) == (2.0, 0.5)
    assert math.isnan(evaluation.cells["grpo/greedy", "easy"].execution_success)


def test_difference_pairs_only_items_that_both_policies_have(evaluation):
    gap = evaluation.differences["greedy", "all"]
    assert (gap.count, gap.better, gap.worse) == (3, 1, 0)
    assert gap.mean == pytest.approx(1 / 3)
    assert difference_lines(evaluation)[0].startswith(
        "grpo against sft, greedy, 3 tasks paired: +33.3 points"
    )


def test_table_has_a_column_for_every_head(evaluation):
    head = table_head(evaluation)
    rows = table_rows(evaluation, "greedy")
    assert [row[0] for row in rows] == list(evaluation.groups)
    assert all(len(row) == len(head) for row in rows)
    assert rows[1][2] == "100.0 (34 to 100)"


def test_counts_within_a_tenth_are_reported_for_nuclei(store):
    parameters = {"suite": "nuclei_count"}
    run = store.lineage.begin(make_request("evaluate", parameters=parameters))
    tasks = [make_task(n, answer="100") for n in range(3)]
    answers = ["109", "111", "many"]
    given = [
        make_trajectory(t, answer=a, accuracy=0.0) for t, a in zip(tasks, answers, strict=True)
    ]
    store.add_trajectories(tasks, given, stage_run=run.id, phase="oracle/greedy")
    rate = summarise(store, run).within_tenth["oracle/greedy"]
    assert (rate.hits, rate.count) == (1, 3)


def test_a_single_difficulty_or_family_does_not_repeat_the_total(store):
    run = store.lineage.begin(make_request("evaluate", parameters={"suite": "toy"}))
    task = make_task()
    store.add_trajectories([task], [make_trajectory(task)], stage_run=run.id, phase="a/greedy")
    assert summarise(store, run).groups == ("all",)


def test_a_table_in_a_file_has_80_columns_and_all_figures(capsys):
    policies = ("sft", "grpo")
    use = [f"{name}: {what}" for name in policies for what in ("tool calls", "code ran")]
    head = ["tasks", "count", *(f"{name}: right (95 %)" for name in policies), *use]
    rows = [["medium", "2,000", "99.9 (99 to 100)", "98.8 (98 to 100)", *("100.0%" for _ in use)]]
    _print_plain("held-out tasks, greedy", head, rows)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= 80
    assert all(printed.count(name) == 1 for name in head if name != "tasks")
    assert printed.count("tasks  ") == 2
    assert printed.count("100.0%") == len(use)


def test_episodes_of_another_evaluations_phases_are_left_out(store):
    run = store.lineage.begin(make_request("evaluate", parameters={"suite": "toy"}))
    task = make_task(0)
    for phase in ("shots", "a/greedy", "b/sampled", "a/greedy/3"):
        made = [make_trajectory(task, accuracy=1.0, calls=0)]
        store.add_trajectories([task], made, stage_run=run.id, phase=phase)
    found = summarise(store, run)
    assert found.phases == ("a/greedy", "b/sampled")
    assert [row[2:4] for row in table_rows(found, "greedy")] == [["100.0 (21 to 100)", "-"]]
