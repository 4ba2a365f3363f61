import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from codedance.envs import load_suite
from codedance.envs.menu.env import VisualCodeMenuEnv
from codedance.envs.menu.programs import MENU, NUMBERS, WORDS, menu_text
from codedance.envs.menu.view import encode_picture, encode_words, printed_number
from codedance.envs.rewards.terms import TERMS
from codedance.envs.suites.filtered import ChosenFamilies
from codedance.envs.suites.nano.canvas import COLOURS
from codedance.envs.visual_code import VisualCodeEnv
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from PIL import Image

from .toys import InProcessSandbox, ToySuite, make_task, noise

ID = "codedance.envs:codedance/VisualCodeMenu-v0"
NAMES = [entry.name for entry in MENU]
ASKED = {"count": "count_colour", "bars": "measure_width"} | {
    "area": "largest_area",
    "maze": "shortest_path",
}


def act(entry, colour="red", cell=0, number=0):
    return np.array([NAMES.index(entry), list(COLOURS).index(colour), cell, number])


@pytest.fixture
def env():
    opened = VisualCodeMenuEnv(ToySuite(), sandbox=InProcessSandbox())
    yield opened
    opened.close()


def test_gymnasiums_checker_is_silent(capsys):
    env = gym.make(ID)
    assert env.unwrapped is env
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
    env.close()


@pytest.mark.parametrize("settings", [{}, {"side": 36, "words": 7, "grid": 2, "split": "test"}])
def test_stable_baselines_checker_is_silent(settings):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = gym.make(ID, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(env, warn=True)
    env.close()


@pytest.mark.parametrize("family", ["count", "bars", "area", "maze"])
def test_the_right_entries_solve_hard_tasks_of_a_family_with_the_full_reward(family):
    env = gym.make(ID, split="test", families=[family], sandbox="local")
    place = env.unwrapped.visual_code
    tasks = [place.suite[index] for index in range(12) if place.suite[index].difficulty == "hard"]
    for task in tasks[:2]:
        env.reset(seed=0, options={"task_id": task.id})
        colour = next((name for name in COLOURS if name in task.question), "red")
        *_, info = env.step(act(ASKED[family], colour))
        assert (info["outcome"], info["is_valid"]) == ("ok", True)
        _, reward, terminated, _, info = env.step(act("answer_printed"))
        assert (terminated, info["is_success"]) == (True, True)
        bonus = info["reward_terms"]["tool_sequence"]
        # By chance a shuffled mosaic has the same largest colour: then the call is not evidence.
        assert bonus == pytest.approx(0.45) or (family, bonus) == ("area", 0.0)
        assert reward == pytest.approx(1.0 + bonus)
    env.close()


def test_the_episode_is_the_same_as_in_the_text_environment():
    menu = VisualCodeMenuEnv(ToySuite(), sandbox=InProcessSandbox())
    plain = VisualCodeEnv(ToySuite(), sandbox=InProcessSandbox())
    assert menu.reset(seed=4)[1] == plain.reset(seed=4)[1]
    for action in (act("crop_cell", cell=5), act("draw_discs"), act("answer_number", number=3)):
        text = menu.text_of(action)
        assert menu.step(action)[1:] == plain.step(text)[1:]
    assert menu.trajectory().messages()[2:] == plain.trajectory().messages()[2:]


def test_the_reward_of_each_step_is_the_sum_of_all_terms(env):
    env.reset(seed=0)
    for action in (act("draw_discs"), act("crop_colour"), act("answer_printed")):
        _, reward, _, _, info = env.step(action)
        assert set(info["reward_terms"]) == set(TERMS)
        assert reward == sum(info["reward_terms"].values())


def test_every_entry_is_well_formed_with_every_argument(env):
    rng = np.random.default_rng(0)
    for _ in range(200):
        action = rng.integers(0, env.action_space.nvec)
        env.reset(seed=0)
        *_, info = env.step(action)
        assert info["ending"] in (None, "answered")
        assert info["reward_terms"]["format"] == 0.0


def test_cells_cover_any_image_and_show_the_named_part():
    picture = noise(40, 20)
    env = gym.make(ID, grid=2)
    env.reset(options={"task": make_task(images=(picture,))})
    shown = [
        (env.step(act(entry, cell=3)), env.episode.turns[-1].execution.images)[1]
        for entry in ("crop_cell", "zoom_cell")
    ]
    assert shown[0][0].tobytes() == picture.crop((20, 10, 40, 20)).tobytes()
    assert shown[1][0].size == (40, 20)
    pixel = make_task(images=(noise(1, 1),))
    env.reset(options={"task": pixel})
    for cell in range(4):
        assert env.step(act("crop_cell", cell=cell))[4]["outcome"] == "ok"
    env.close()


def test_answers_are_the_printed_value_a_number_or_a_choice():
    text = menu_text(act("answer_printed"), grid=4, printed="3\n 17 \n\n")
    assert text.endswith("<answer>17</answer>")
    assert menu_text(act("answer_printed"), grid=4).endswith("<answer>unknown</answer>")
    assert "<answer>42<" in menu_text(act("answer_number", number=42), grid=4)
    assert "<answer>no<" in menu_text(act("answer_choice", number=1), grid=4)
    chosen = menu_text(act("answer_choice", number=3), grid=4, choices=("cat", "dog"))
    assert "<answer>dog<" in chosen
    assert len(WORDS) <= NUMBERS


def test_the_view_contains_the_newest_image_and_output():
    env = gym.make(ID, families=["area"])
    first, _ = env.reset(seed=0)
    assert not first["tool_image"].any()
    assert first["figures"].tolist() == [0.0] * 7
    shown, *_ = env.step(act("crop_cell"))
    assert shown["tool_image"].any()
    assert (shown["image"] == first["image"]).all()
    assert shown["figures"].tolist() == pytest.approx([1 / 6, 0, 1, 0, 1, 0, 0])
    printed, *_ = env.step(act("largest_area"))
    assert (printed["tool_image"] == shown["tool_image"]).all()
    assert printed["output"].sum() == 2.0
    assert all(env.observation_space[key].contains(printed[key]) for key in printed)
    env.close()


def test_images_keep_their_proportions_and_the_rest_is_black():
    wide = Image.new("RGB", (100, 50), (200, 100, 0))
    array = encode_picture(wide, 8)
    assert (array[:4] == (200, 100, 0)).all()
    assert not array[4:].any()
    assert (encode_picture(Image.new("RGB", (1, 1), (9, 8, 7)), 5) == (9, 8, 7)).all()
    half = Image.fromarray(np.array([[[0] * 3, [100] * 3]], np.uint8).repeat(2, 0))
    assert encode_picture(half, 1).tolist() == [[[50] * 3]]
    assert encode_picture(None, 3).sum() == 0


def test_words_are_encoded_without_case_order_or_punctuation():
    assert (
        encode_words("How many RED discs?", 64) == encode_words("discs red, many; how", 64)
    ).all()
    assert encode_words("\ud800 été 日本", 16).max() == 1.0
    assert encode_words("", 16).sum() == 0.0


@pytest.mark.parametrize(
    ("text", "number"),
    [("7\n", 7.0), ("a\n-2.5", -2.5), ("nan", None), ("1e999", None), ("", None), ("red", None)],
)
def test_the_last_word_is_a_number_or_not(text, number):
    assert printed_number(text) == number


def test_questions_of_different_families_and_colours_look_different():
    suite = load_suite("nano")
    questions = {suite[index].question for index in range(400)}
    bags = {encode_words(question, 256).tobytes() for question in questions}
    assert len(bags) == len(questions)


def test_it_continues_from_a_state_and_its_specification_can_be_pickled(env):
    env.reset(seed=2)
    env.step(act("crop_cell"))
    state = env.clone_state()
    first = env.step(act("answer_number", number=1))[1:]
    env.restore_state(state)
    assert env.step(act("answer_number", number=1))[1:] == first
    made = gym.make(pickle.loads(pickle.dumps(gym.make(ID, side=40).spec)))
    assert made.reset(seed=0)[0]["image"].shape == (40, 40, 3)


@pytest.mark.slow
def test_processes_and_threads_return_the_same_views():
    seen = []
    for mode in ("sync", "async"):
        envs = gym.make_vec(ID, num_envs=2, vectorization_mode=mode, families=["count"])
        observation, _ = envs.reset(seed=3)
        stepped = envs.step(np.stack([act("count_colour")] * 2))
        seen.append(
            [
                np.asarray(part).tobytes()
                for one in (observation, stepped[0])
                for part in one.values()
            ]
        )
        seen[-1].append(stepped[1].tobytes())
        envs.close()
    assert seen[0] == seen[1]


def test_a_smaller_menu_has_only_the_arguments_that_its_entries_read():
    entries = ("measure_width", "answer_printed")
    env = VisualCodeMenuEnv(ToySuite(), sandbox=InProcessSandbox(), entries=entries)
    assert env.action_space.nvec.tolist() == [2, len(COLOURS), 1, 1]
    env.reset(seed=0)
    whole = menu_text(act("measure_width", "blue"), grid=4)
    blue = list(COLOURS).index("blue")
    assert env.text_of(np.array([0, blue, 0, 0])) == whole
    assert env.text_of(np.array([1, 0, 0, 0])) == menu_text(act("answer_printed"), grid=4)
    with pytest.raises(ValueError, match="not an action of"):
        env.step(np.array([2, 0, 0, 0]))
    env.close()
    for wrong in (["measure"], []):
        with pytest.raises(ValueError, match="entries must be some of crop_cell"):
            VisualCodeMenuEnv(ToySuite(), entries=wrong)


def test_misuse_is_rejected_by_name(env):
    with pytest.raises(ResetNeeded):
        env.step(act("answer_printed"))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="not an action of MultiDiscrete"):
        env.step(np.array([99, 0, 0, 0]))
    with pytest.raises(ValueError, match="interface"):
        VisualCodeMenuEnv(ToySuite(), interface="box")
    with pytest.raises(ValueError, match="side must be at least 1"):
        VisualCodeMenuEnv(ToySuite(), side=0)
    with pytest.raises(ValueError, match="no families"):
        VisualCodeMenuEnv("nano", families=["cuont"])


def test_chosen_families_alternate_and_exclude_all_others():
    suite = ChosenFamilies(load_suite("nano", split="test"), ["maze", "count"])
    tasks = [suite[index] for index in range(20)]
    assert [task.family for task in tasks[:4]] == ["maze", "count", "maze", "count"]
    assert len({task.id for task in tasks}) == 20
    assert {task.difficulty for task in tasks} == {"easy", "medium", "hard"}
    assert suite.task(tasks[3].id).question == tasks[3].question
    with pytest.raises(KeyError, match="none of the families"):
        suite.task("nano/bars/test/hard/4")
    assert suite[len(suite) - 1].family == "count"
