from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from codedance.envs.types import Difficulty
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import GroupSampler
from codedance.policies.training.grpo.loop import train_grpo
from codedance.policies.training.grpo.task_order.curriculum import (
    Curriculum,
    PassRecord,
    learnability,
)
from codedance.policies.training.grpo.task_order.task_draws import TaskDraws
from codedance.policies.training.training_state import TrainingInterrupted
from hypothesis import given
from hypothesis import strategies as st

from ..players import PlannedPolicy, task

TASKS = [
    replace(task(index), id=f"{family}/{index}", family=family)
    for index, family in enumerate(["known", "half", "unknown"] * 4)
]
CONFIG = GRPOConfig(
    steps=4,
    tasks_per_step=3,
    num_generations=4,
    learning_rate=1e-3,
    max_new_tokens=8,
    max_redraws=0,
    reward="outcome",
    curriculum="learnability",
)


def test_learnability_is_highest_if_half_are_right():
    assert learnability(np.array([0.0, 0.25, 0.5, 0.75, 1.0])).tolist() == [0, 0.75, 1.0, 0.75, 0]


def test_estimates_by_hand():
    # Task 0: 3 of 4 right; its kind (two tasks): (3 + 2) / (4 + 4) = 0.625, so task 0 has
    # (3 + 4 * 0.625) / 8 = 0.6875, its untried sibling (0 + 4 * 0.625) / 4, the other kind a half.
    tasks = [TASKS[0], TASKS[3], TASKS[1]]
    curriculum = Curriculum(tasks, seed=0)
    assert curriculum.accuracies().tolist() == [0.5, 0.5, 0.5]
    curriculum.learn(tasks[0].id, [1.0, 1.0, 1.0, 0.0])
    assert curriculum.accuracies().tolist() == pytest.approx([0.6875, 0.625, 0.5])


def test_older_groups_lose_weight():
    curriculum = Curriculum(TASKS[:1], seed=0)
    curriculum.learn(TASKS[0].id, [1.0] * 8)
    for _ in range(60):
        curriculum.learn(TASKS[0].id, [0.0] * 8)
    assert curriculum.accuracies()[0] < 0.05


def test_history_counts_as_a_few_samples_and_unknown_tasks_are_ignored():
    history = {TASKS[0].id: PassRecord(90.0, 100.0), "gone/1": PassRecord(1.0, 1.0)}
    curriculum = Curriculum(TASKS[:2], seed=0, history=history)
    # 4 samples at 0.9: kind (3.6 + 2) / 8 = 0.7, task (3.6 + 2.8) / 8 = 0.8.
    assert curriculum.accuracies().tolist() == pytest.approx([0.8, 0.5])


def knowing(conversation):
    """Answer the first family right, the second half the time, the third never."""
    family = conversation.messages[-1].text
    sure = {"known": True, "half": conversation.seed % 2 == 0, "unknown": False}[family]
    return f"<answer>{5 if sure else 6}</answer>"


def drawn(sampler, steps):
    found = []
    for step in steps:
        kept, _ = sampler.sample(PlannedPolicy(knowing), step)
        found.append([group.trajectories[0].task_id for group in kept])
    return found


ASKED = [replace(one, question=one.family) for one in TASKS]


def test_tasks_with_mixed_groups_are_drawn_more_often(sandbox):
    sampler = GroupSampler(ASKED, CONFIG, sandbox=sandbox)
    drawn(sampler, range(12))
    families = Counter(one.split("/")[0] for step in drawn(sampler, range(12, 36)) for one in step)
    assert families["half"] > 2 * max(families["known"], families["unknown"])
    assert min(families.values()) > 0  # none is dropped permanently
    plain = GroupSampler(ASKED, replace(CONFIG, curriculum="none"), sandbox=sandbox)
    even = Counter(one.split("/")[0] for step in drawn(plain, range(24)) for one in step)
    assert set(even.values()) == {24}


def test_no_task_is_drawn_twice_in_a_step_while_others_are_left(sandbox):
    config = replace(CONFIG, tasks_per_step=12)
    for step in drawn(GroupSampler(ASKED, config, sandbox=sandbox), range(3)):
        assert len(set(step)) == 12


def test_draws_depend_only_on_the_seed_and_earlier_results(sandbox):
    whole = drawn(GroupSampler(ASKED, CONFIG, sandbox=sandbox), range(8))
    first = GroupSampler(ASKED, CONFIG, sandbox=sandbox)
    begun = drawn(first, range(4))
    second = GroupSampler(ASKED, CONFIG, sandbox=sandbox)
    second.restore(first.state())
    assert begun + drawn(second, range(4, 8)) == whole
    other = GroupSampler(ASKED, replace(CONFIG, seed=1), sandbox=sandbox)
    assert drawn(other, range(8)) != whole


def test_the_share_of_easy_tasks_is_respected(sandbox):
    tasks = [
        replace(one, difficulty=Difficulty.EASY if place < 4 else Difficulty.HARD)
        for place, one in enumerate(ASKED)
    ]
    sampler = GroupSampler(tasks, replace(CONFIG, easy_share=0.5), sandbox=sandbox)
    easy = {one.id for one in tasks[:4]}
    found = [one for step in drawn(sampler, range(8)) for one in step]
    assert sum(one in easy for one in found) == 12


@pytest.mark.parametrize("curriculum", ["none", "learnability"])
def test_spare_tasks_leave_the_order_of_the_others(curriculum):
    config = replace(CONFIG, curriculum=curriculum)
    plain, spared = TaskDraws(ASKED, config), TaskDraws(ASKED, config)
    order, spares = [], []
    for number in range(24):
        for draws in (plain, spared):
            draws.begin_step()
        order.append((plain.next_place(), spared.next_place()))
        spares.append(spared.spare_place(number))
    assert all(one == other for one, other in order)
    assert spares != [one for one, _ in order]
    assert [TaskDraws(ASKED, config).spare_place(number) for number in range(24)] != spares or (
        curriculum == "none"
    )
    if curriculum == "none":  # an epoch of its own
        assert sorted(spares[: len(ASKED)]) == list(range(len(ASKED)))


@given(st.lists(st.tuples(st.integers(0, 11), st.lists(st.sampled_from([0.0, 1.0]), min_size=1))))
def test_estimates_are_within_their_bounds(groups):
    curriculum = Curriculum(TASKS, seed=0)
    for place, accuracies in groups:
        curriculum.learn(TASKS[place].id, accuracies)
    assert ((curriculum.accuracies() > 0.0) & (curriculum.accuracies() < 1.0)).all()
    assert 0 <= curriculum.draw([3], range(12), [0, 1]) < 12


def test_a_stopped_run_resumes_with_the_same_draws(tiny_folder, tmp_path, sandbox):
    history = {TASKS[0].id: PassRecord(0.0, 4.0)}

    def run(folder, stop=None):
        drawn_ids = []
        train_grpo(
            tiny_folder,
            TASKS,
            CONFIG,
            sandbox=sandbox,
            folder=folder,
            history=history,
            on_trajectories=lambda _, found: drawn_ids.append([one.task_id for one in found]),
            should_stop=lambda: len(drawn_ids) == stop,
        )
        return drawn_ids

    whole = run(tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "cut", stop=2)
    assert run(tmp_path / "cut") == whole[2:]
