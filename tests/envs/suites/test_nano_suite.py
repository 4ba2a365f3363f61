"""The nano suite: reproducible items, balanced answers, exact oracles, no leaks."""

from collections import Counter

import numpy as np
import pytest
from codedance.envs.suites.nano import build_sources
from codedance.envs.suites.nano.sources import _packed, nearest_digit
from codedance.envs.suites.nano.suite import FAMILIES, NanoSuite, family_of, make_task
from codedance.envs.types import Difficulty
from codedance.sandbox import open_sandbox

DIFFICULTIES = tuple(Difficulty)


@pytest.fixture(scope="module")
def sandbox():
    with open_sandbox("local") as opened:
        yield opened


def test_a_seed_yields_the_same_item_every_time():
    for family in FAMILIES:
        one, two = (make_task(family, Difficulty.HARD, "test", 7) for _ in range(2))
        assert (one.question, one.answer, one.id) == (two.question, two.answer, two.id)
        assert one.images[0].tobytes() == two.images[0].tobytes()


def test_another_seed_yields_another_item():
    pictures = {
        make_task("bars", Difficulty.HARD, "train", seed).images[0].tobytes() for seed in range(9)
    }
    assert len(pictures) == 9


def test_splits_share_no_item_for_the_same_seed():
    for family in FAMILIES:
        train, test = (make_task(family, Difficulty.EASY, split, 3) for split in ("train", "test"))
        assert train.images[0].tobytes() != test.images[0].tobytes()


def test_any_21_tasks_in_a_row_contain_each_family_and_difficulty_once():
    suite = NanoSuite("train")
    kinds = Counter((suite[i].family, suite[i].difficulty) for i in range(100, 121))
    assert set(kinds.values()) == {1}
    assert len(kinds) == len(FAMILIES) * 3


def test_a_task_is_found_by_its_id():
    suite = NanoSuite("test")
    task = suite[11]
    assert suite.task(task.id).images[0].tobytes() == task.images[0].tobytes()


@pytest.mark.parametrize("wrong", ["nano/bars/train/hard/1", "nano/bars/test/huge/1", "nano", ""])
def test_an_id_of_another_split_or_form_is_rejected(wrong):
    with pytest.raises(KeyError, match="expected an id like"):
        NanoSuite("test").task(wrong)


def test_an_index_beyond_the_split_is_rejected():
    with pytest.raises(IndexError, match="0 to 1999"):
        NanoSuite("test")[2000]


def test_more_tasks_in_the_same_order_are_drawn_past_the_end():
    suite = NanoSuite("test")
    assert suite.draw(41).id == suite[41].id
    families = [suite.draw(index).family for index in range(2000, 2007)]
    assert sorted(families) == sorted(suite.families)
    assert suite.draw(2000).family == suite.families[2000 % 7]


def test_an_unknown_split_is_rejected():
    with pytest.raises(ValueError, match="'dev'"):
        NanoSuite("dev")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_oracles_program_finds_the_stored_answer_in_the_sandbox(sandbox, family, difficulty):
    for split in ("train", "test"):
        for seed in range(4):
            task = make_task(family, difficulty, split, seed)
            oracle = FAMILIES[family]
            with sandbox.session(images=list(task.images)) as session:
                execution = session.run(oracle.programs(task.question)["exact"])
            assert execution.error is None
            assert oracle.read(execution.stdout, execution.images) == task.answer


def test_at_least_one_family_returns_a_drawing(sandbox):
    task = make_task("dots", Difficulty.HARD, "test", 0)
    with sandbox.session(images=list(task.images)) as session:
        execution = session.run(FAMILIES["dots"].programs(task.question)["exact"])
    assert execution.stdout == ""
    assert execution.images[0].size == task.images[0].size
    assert execution.images[0].tobytes() != task.images[0].tobytes()


def test_the_loose_style_fails_on_fine_details(sandbox):
    wrong = 0
    for seed in range(6):
        task = make_task("count", Difficulty.HARD, "train", seed)
        with sandbox.session(images=list(task.images)) as session:
            execution = session.run(FAMILIES["count"].programs(task.question)["loose"])
        wrong += execution.stdout.strip() != task.answer
    assert wrong == 6


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_of_hard_tasks_are_balanced(family):
    """The most common answer of 400 is within 10 points of the family's chance."""
    answers = Counter(
        make_task(family, Difficulty.HARD, "train", seed).answer for seed in range(400)
    )
    assert answers.most_common(1)[0][1] / 400 <= FAMILIES[family].chance + 0.10


@pytest.mark.parametrize("family", FAMILIES)
def test_the_question_does_not_depend_on_the_difficulty(family):
    def phrasings(difficulty):
        tasks = (make_task(family, difficulty, "train", seed) for seed in range(80))
        return {task.question for task in tasks}

    assert phrasings(Difficulty.EASY) == phrasings(Difficulty.HARD)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_question_is_assigned_to_its_family(family):
    for seed in range(8):
        task = make_task(family, Difficulty.EASY, "train", seed)
        assert family_of(task.question) is FAMILIES[family]


def test_a_question_of_no_family_is_assigned_to_none():
    assert family_of("What is the meaning of life?") is None


def test_the_target_frame_fills_the_easy_image_and_a_hundredth_of_the_hard_one():
    from codedance.envs.suites.nano.canvas import near_colour
    from codedance.envs.suites.nano.family import colour_in

    for difficulty, low, high in ((Difficulty.EASY, 0.6, 1.0), (Difficulty.HARD, 0.005, 0.015)):
        for seed in range(10):
            task = make_task("digit", difficulty, "train", seed)
            pixels = np.asarray(task.images[0])
            rows, columns = np.nonzero(near_colour(pixels, colour_in(task.question)))
            share = np.ptp(rows) * np.ptp(columns) / pixels[..., 0].size
            assert low <= share <= high


def test_ink_and_photographs_are_disjoint_between_the_splits():
    packed = _packed()
    train = {glyph.tobytes() for glyph in packed["train_ink"]}
    assert not train & {glyph.tobytes() for glyph in packed["test_ink"]}
    photos = {photo.tobytes() for photo in packed["train_photos"]}
    assert not photos & {photo.tobytes() for photo in packed["test_photos"]}


def test_the_packed_sources_match_the_installed_libraries():
    built = build_sources.pack_sources()
    packed = _packed()
    assert built.keys() == packed.keys()
    for name in ("train_ink", "test_ink", "train_digits", "test_digits"):
        np.testing.assert_array_equal(built[name], packed[name])
    for name in ("train_photos", "test_photos"):
        assert np.abs(built[name].astype(int) - packed[name]).mean() < 1.0


def test_ink_is_read_by_its_nearest_neighbour():
    packed = _packed()
    glyph = packed["test_ink"][0].astype(float)
    assert nearest_digit(glyph) == packed["test_digits"][0]
