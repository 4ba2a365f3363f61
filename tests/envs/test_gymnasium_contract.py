"""Conformance to Gymnasium: its checker, wrappers and specifications, and leftovers of close."""

import logging
import os
import pickle
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from codedance.envs import Item, register_family
from codedance.envs.running_accuracy import RunningAccuracy
from codedance.sandbox import Limits
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import (
    OrderEnforcing,
    PassiveEnvChecker,
    RecordEpisodeStatistics,
    RecordVideo,
    TimeLimit,
)
from PIL import Image

ID = "codedance.envs:codedance/VisualCode-v0"
MENU = "codedance.envs:codedance/VisualCodeMenu-v0"
LOOK = "```python\nprint(input_image.getpixel((3, 3)))\n```"
WRAPPERS = {
    "RunningAccuracy": RunningAccuracy,
    "RunningAccuracy by family": lambda env: RunningAccuracy(env, by="family", decay=1.0),
    "TimeLimit": lambda env: TimeLimit(env, 3),
    "OrderEnforcing": OrderEnforcing,
    "PassiveEnvChecker": PassiveEnvChecker,
}


@pytest.fixture(scope="module", autouse=True)
def own_suite():
    @register_family("shades of the contract", "grey")
    def grey(rng, difficulty):
        level = int(rng.integers(256))
        return Item("How bright?", Image.new("RGB", (9, 7), (level, level, level)), str(level))


def suites(tmp_path):
    Image.new("RGB", (12, 10), "red").save(tmp_path / "one.png")
    lines = '{"question": "Which colour?", "images": ["one.png"], "answer": "red"}\n'
    (tmp_path / "own.jsonl").write_text(lines)
    return "nano", "shades of the contract", tmp_path / "own.jsonl"


def silent_check(env, *, allowed=()):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
    said = [str(one.message) for one in caught]
    return [text for text in said if not any(part in text for part in allowed)]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("place", range(3))
def test_the_checker_is_silent_for_every_suite(tmp_path, place, split, capsys):
    env = gym.make(ID, suite=suites(tmp_path)[place], split=split)
    assert silent_check(env) == []
    env.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"interface": "box"},
        {"interface": "text"},
        {"observe": "transcript"},
        {"reward": "bat_paper", "families": ["maze"]},
        {"max_turns": 1},
        {"limits": Limits(wall_seconds=5.0)},
    ],
    ids=str,
)
def test_the_checker_is_silent_for_other_settings(settings, capsys):
    env = gym.make(ID, **settings)
    assert silent_check(env) == []
    env.close()


@pytest.mark.parametrize("environment", [ID, MENU])
@pytest.mark.parametrize(
    ("mode", "kind"), [("ansi_list", str), ("rgb_array_list", np.ndarray)], ids=str
)
def test_list_modes_return_every_turn_since_the_last_call(environment, mode, kind):
    env = gym.make(environment, render_mode=mode, max_turns=2)
    env.reset(seed=0)
    env.step(LOOK if environment == ID else np.array([0, 0, 0, 0]))
    shown = env.render()
    assert [isinstance(one, kind) for one in shown] == [True, True]
    assert not np.array_equal(*shown)
    env.close()


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_checker_reports_of_a_wrapped_environment_only_the_wrapping(name, capsys):
    env = WRAPPERS[name](gym.make(ID))
    assert silent_check(env, allowed=["is different from the unwrapped version"]) == []
    env.close()


def test_a_specification_survives_pickling_and_json_and_recreates_the_environment():
    env = gym.make(ID, split="test", max_turns=3, render_mode="ansi", max_episode_steps=2)
    spec = env.spec
    env.close()
    copies = [pickle.loads(pickle.dumps(spec)), EnvSpec.from_json(spec.to_json()), spec]
    seen = []
    for copy in copies:
        made = gym.make(copy)
        seen.append(repr((made.reset(seed=2), made.step(LOOK), made.step(LOOK), made.render())))
        assert made.spec.max_episode_steps == 2
        made.close()
    assert seen[0] == seen[1] == seen[2]


def test_the_specification_of_a_wrapped_environment_recreates_it_with_its_wrapper():
    env = RunningAccuracy(gym.make(ID), by="family", prior_weight=3.0)
    made = gym.make(pickle.loads(pickle.dumps(env.spec)))
    assert isinstance(made, RunningAccuracy)
    assert made.spec == env.spec


def test_the_specification_of_a_vector_environment_recreates_it():
    envs = gym.make_vec(ID, num_envs=3, split="test")
    again = gym.make_vec(pickle.loads(pickle.dumps(envs.spec)))
    assert type(again) is type(envs)
    assert repr(again.reset(seed=1)) == repr(envs.reset(seed=1))
    for each in (envs, again):
        each.close()


def test_a_time_limit_truncates_and_the_next_episode_starts_clean():
    env = gym.make(ID, max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(LOOK)[2:4] == (False, False)
    _, reward, terminated, truncated, info = env.step(LOOK)
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["ending"], info["is_valid"]) == (None, True)
    assert env.reset()[1]["turn"] == 0
    env.close()


def test_an_episodes_return_and_length_are_recorded():
    env = RecordEpisodeStatistics(gym.make(ID))
    env.reset(seed=0)
    env.step("```python\n1/0\n```")
    *_, info = env.step("hm")
    assert info["episode"]["r"] == pytest.approx(-0.3)
    assert info["episode"]["l"] == 2
    env.close()


def test_a_video_is_recorded_of_every_episode(tmp_path):
    env = RecordVideo(
        gym.make(ID, render_mode="rgb_array"),
        str(tmp_path / "videos"),
        episode_trigger=lambda _: True,
        disable_logger=True,
    )
    for seed in range(2):
        env.reset(seed=seed)
        env.step(LOOK)
        env.step("<answer>1</answer>")
    env.close()
    found = sorted((tmp_path / "videos").glob("*.mp4"))
    assert [path.name for path in found] == ["rl-video-episode-0.mp4", "rl-video-episode-1.mp4"]
    assert all(path.stat().st_size > 1_000 for path in found)


def children():
    """Return the living descendants of this process."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = entry.parent.name, entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if rest[0] != "Z":
            parents[int(number)] = int(rest[1])
    found = {os.getpid()}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def test_two_hundred_environments_share_one_sandbox_and_leave_no_process(caplog):
    before = children()
    caplog.set_level(logging.WARNING)
    envs = [gym.make(ID) for _ in range(200)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    for env in envs[::10]:
        observation, *_, info = env.step(LOOK)
        assert (info["outcome"], info["is_valid"]) == ("ok", True)
        assert observation["text"].startswith("<tool_response>\n(")
    assert children() > before
    for env in envs:
        env.close()
        env.close()
    assert children() == before
    assert caplog.records == []


@pytest.mark.parametrize("mode", [None, "sync", "async"])
def test_a_vector_environment_leaves_no_process(mode):
    before = children()
    options = {"shared_memory": False} if mode == "async" else {}
    envs = gym.make_vec(ID, num_envs=4, vectorization_mode=mode, vector_kwargs=options)
    envs.reset(seed=0)
    envs.step([LOOK] * 4)
    assert children() > before
    envs.close()
    assert children() == before
