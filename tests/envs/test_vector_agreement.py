"""Our vector environment and Gymnasium's two produce the same trajectories in every mode."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from codedance.envs.vector import VisualCodeVectorEnv
from codedance.envs.visual_code import VisualCodeEnv
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from .toys import InProcessSandbox, ToySuite

ID = "codedance.envs:codedance/VisualCode-v0"
LOOK = "```python\nprint(input_image.getpixel((3, 3)), seeded())\ndisplay(input_image)\n```"
FAIL = "```python\n1/0\n```"
ACTIONS = [
    [LOOK, "<answer>5</answer>", "hm"],
    ["<answer>1</answer>", FAIL, LOOK],
    [LOOK, LOOK, LOOK],
    ["<answer>3</answer>"] * 3,
    [LOOK, "hm", FAIL],
]


def toy(max_episode_steps=None):
    env = VisualCodeEnv(ToySuite(), sandbox=InProcessSandbox())
    return gym.wrappers.TimeLimit(env, max_episode_steps) if max_episode_steps else env


def ours(mode, **settings):
    return VisualCodeVectorEnv(
        3, suite=ToySuite(), sandbox=InProcessSandbox(), autoreset_mode=mode, **settings
    )


def exact(value):
    """Return a value for comparison: with every pixel, independent of the order of keys."""
    if isinstance(value, dict):
        return {key: exact(one) for key, one in sorted(value.items())}
    if isinstance(value, tuple | list):
        return [exact(one) for one in value]
    if isinstance(value, np.ndarray):
        if value.dtype != object:
            return value.dtype.str, value.shape, value.tobytes()
        return value.shape, exact(value.tolist())
    return value


def record(envs, mode):
    """Return all results; without autoreset, ended members are reset by a mask."""
    seen = [exact(envs.reset(seed=3))]
    for actions in ACTIONS:
        observation, rewards, terminations, truncations, infos = envs.step(actions)
        assert observation in envs.observation_space
        seen.append(exact((observation, rewards, terminations, truncations, infos)))
        over = terminations | truncations
        if mode is AutoresetMode.DISABLED and over.any():
            seen.append(exact(envs.reset(seed=[7, 8, 9], options={"reset_mask": over})))
    seen.append(exact(envs.reset(options={"task_id": "toy/counting/train/2"})))
    envs.close()
    return seen


@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_all_three_produce_the_same_trajectories(mode, limit):
    make = [functools.partial(toy, limit)] * 3
    found = record(ours(mode, max_episode_steps=limit), mode)
    assert found == record(SyncVectorEnv(make, autoreset_mode=mode), mode)
    processes = AsyncVectorEnv(make, shared_memory=False, autoreset_mode=mode)
    assert found == record(processes, mode)


def test_a_step_limit_truncates_and_is_in_the_specification():
    envs = gym.make_vec(
        ID, num_envs=2, max_episode_steps=1, suite=ToySuite(), sandbox=InProcessSandbox()
    )
    envs.reset(seed=0)
    *_, terminations, truncations, infos = envs.step([LOOK, "<answer>1</answer>"])
    assert (terminations.tolist(), truncations.tolist()) == ([False, True], [True, True])
    assert infos["is_valid"].all()
    assert envs.spec.kwargs["max_episode_steps"] == 1
    envs.close()


def test_gymnasiums_vector_wrappers_work():
    envs = DictInfoToList(RecordEpisodeStatistics(ours(AutoresetMode.NEXT_STEP)))
    envs.reset(seed=0)
    *_, infos = envs.step(["<answer>99</answer>", LOOK, "hm"])
    assert [info.get("episode", {}).get("r") for info in infos] == [0.0, None, -0.2]
    envs.close()


def test_call_get_attr_and_set_attr_work_as_in_gymnasium():
    envs = ours(AutoresetMode.NEXT_STEP)
    theirs = SyncVectorEnv([toy] * 3)
    for each in (envs, theirs):
        each.reset(seed=0)
        assert each.get_attr("has_begun") == (True, True, True)
        assert [state.task.suite for state in each.call("clone_state")] == ["toy"] * 3
        each.set_attr("note", ["a", "b", "c"])
        assert each.get_attr("note") == ("a", "b", "c")
        each.set_attr("note", "d")
        assert each.get_attr("note") == ("d", "d", "d")
        with pytest.raises(ValueError, match="3"):
            each.set_attr("note", [1, 2])
        each.close()


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True, False, False], TypeError),
        (np.array([1, 0, 0]), TypeError),
        (np.array([True]), ValueError),
        (np.zeros(3, bool), ValueError),
    ],
)
def test_a_mask_that_gymnasium_rejects_is_rejected(mask, error):
    for envs in (ours(AutoresetMode.DISABLED), SyncVectorEnv([toy] * 3)):
        envs.reset(seed=0)
        with pytest.raises(error, match="reset_mask"):
            envs.reset(options={"reset_mask": mask})
        envs.close()


def test_members_are_seeded_as_in_gymnasium():
    envs, theirs = ours(AutoresetMode.NEXT_STEP), SyncVectorEnv([toy] * 3)
    for each in (envs, theirs):
        each.reset(seed=5)
    assert envs.np_random_seed == theirs.np_random_seed == (5, 6, 7)
    drawn = [[int(one.integers(1000)) for one in each.np_random] for each in (envs, theirs)]
    assert drawn[0] == drawn[1]
    for each in (envs, theirs):
        each.close()


def test_a_closed_environment_reports_that():
    envs = ours(AutoresetMode.NEXT_STEP)
    envs.reset(seed=0)
    envs.close()
    envs.close()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        envs.step([LOOK] * 3)
    with pytest.raises(gym.error.ClosedEnvironmentError):
        envs.reset()
