"""The crop of a demonstration: it contains the region of the question, by the image alone."""

import pytest
from codedance.envs.parsing import parse_action
from codedance.envs.suites.nano.suite import make_task
from codedance.envs.types import Difficulty
from codedance.policies.models.nano import train_tokenizer
from codedance.policies.scripted.box_teacher import GRID, box_texts, useful_box

PLACED = [
    (family, difficulty, seed)
    for family in ("digit", "tag")
    for difficulty in Difficulty
    for seed in range(4)
]


@pytest.mark.parametrize(("family", "difficulty", "seed"), PLACED)
def test_the_box_contains_the_true_region_and_little_else(family, difficulty, seed):
    task = make_task(family, difficulty, "train", seed)
    left, top, right, bottom = map(int, task.provenance["region"].split(","))
    box = useful_box(task.images[0], task.question)
    assert box is not None
    assert (box[0] <= left, box[1] <= top) == (True, True)
    assert (box[2] >= right, box[3] >= bottom) == (True, True)
    assert box[2] - box[0] <= right - left + 2 * GRID
    assert box[3] - box[1] <= bottom - top + 2 * GRID


@pytest.mark.parametrize("family", ["digit", "tag", "dots", "count", "bars", "maze"])
def test_sides_are_on_the_grid_within_the_image(family):
    task = make_task(family, Difficulty.HARD, "train", 3)
    box = useful_box(task.images[0], task.question)
    assert box is not None
    assert all(side % GRID == 0 for side in box)
    assert 0 <= box[0] < box[2] <= 224
    assert 0 <= box[1] < box[3] <= 224


def test_the_texts_are_a_crop_and_the_answer_in_the_box_interface():
    task = make_task("bars", Difficulty.MEDIUM, "train", 1)
    actions = [parse_action(text, interface="box") for text in box_texts(task)]
    assert [action.kind for action in actions] == ["code", "answer"]
    assert actions[1].content == task.answer
    assert all(action.format_fault is None for action in actions)


def test_the_demonstration_is_only_the_answer_if_no_crop_helps():
    area = make_task("area", Difficulty.HARD, "train", 0)
    assert useful_box(area.images[0], area.question) is None
    assert [parse_action(text, interface="box").kind for text in box_texts(area)] == ["answer"]


def test_an_unknown_question_and_an_absent_colour_have_no_box():
    task = make_task("digit", Difficulty.EASY, "train", 0)
    assert useful_box(task.images[0], "What is this?") is None
    absent = next(c for c in ("red", "green", "blue") if c not in task.question)
    assert useful_box(task.images[0], f"Which digit is in the {absent} frame?") is None


def test_a_box_has_one_token_per_digit_in_the_nano_model():
    tasks = [make_task("tag", Difficulty.HARD, "train", seed) for seed in range(40)]
    tokenizer = train_tokenizer([text for task in tasks for text in box_texts(task)], 600)
    for task in tasks:
        box = box_texts(task)[0].split("</think>\n")[1]
        tokens = [tokenizer.decode([index]) for index in tokenizer.encode(box).ids]
        assert [token for token in tokens if any(c.isdigit() for c in token)] == [
            digit for digit in box if digit.isdigit()
        ]
