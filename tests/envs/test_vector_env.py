import functools

import gymnasium as gym
import numpy as np
import pytest
from codedance.envs.vector import VisualCodeVectorEnv
from codedance.envs.visual_code import VisualCodeEnv
from gymnasium.error import ResetNeeded
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from .toys import InProcessSandbox, ToySuite

ID = "codedance.envs:codedance/VisualCode-v0"
LOOK = "```python\nprint(input_image.getpixel((3, 3)))\n```"
ACTIONS = [[LOOK, "<answer>5</answer>", "hm"], ["<answer>1</answer>"] * 3, [LOOK] * 3]


def vector(count=3, **settings):
    return VisualCodeVectorEnv(
        count, **{"suite": ToySuite(), "sandbox": InProcessSandbox()} | settings
    )


def toy():
    return VisualCodeEnv(ToySuite(), sandbox=InProcessSandbox())


def record(envs):
    seen = [repr(envs.reset(seed=3))]
    for actions in ACTIONS:
        observation, rewards, terminations, truncations, infos = envs.step(actions)
        assert observation in envs.observation_space
        seen.append(repr((observation, rewards, terminations, truncations, infos)))
    envs.close()
    return seen


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_it_gives_what_gymnasiums_own_vector_environment_gives(mode):
    ours = record(vector(autoreset_mode=mode))
    assert ours == record(SyncVectorEnv([toy] * 3, autoreset_mode=mode))


def test_it_works_in_processes_too():
    theirs = AsyncVectorEnv([toy] * 3, shared_memory=False)
    assert record(theirs) == record(vector())


def test_make_vec_gives_ours_and_gymnasiums_on_request():
    settings = {"suite": "nano", "split": "test"}
    ours = gym.make_vec(ID, num_envs=4, **settings)
    assert isinstance(ours, VisualCodeVectorEnv)
    sync = gym.make_vec(ID, num_envs=4, vectorization_mode="sync", **settings)
    forked = gym.make_vec(
        ID,
        num_envs=4,
        vectorization_mode="async",
        vector_kwargs={"shared_memory": False},
        **settings,
    )
    seen = []
    for envs in (ours, sync, forked):
        observation, infos = envs.reset(seed=0)
        stepped = envs.step([LOOK] * 4)
        seen.append(repr((observation, infos["task_id"], stepped[0], stepped[1])))
        envs.close()
    assert seen[0] == seen[1] == seen[2]


def test_sixty_four_members_step_at_once_over_one_sandbox():
    envs = gym.make_vec(ID, num_envs=64)
    envs.reset(seed=0)
    observation, _, _, truncations, infos = envs.step([LOOK] * 64)
    assert not truncations.any()
    assert infos["is_valid"].all()
    assert all(text.startswith("<tool_response>\n(") for text in observation["text"])
    envs.close()


class _Broken:
    """A suite of which the first task cannot be read at all."""

    name, split, families = "broken", "train", ("counting",)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise OSError("the disk is gone")

    def task(self, task_id):
        return ToySuite()[0]


def test_a_member_whose_task_cannot_be_read_is_lost_alone():
    envs = vector(2)
    envs.envs[0].suite = _Broken()
    _, infos = envs.reset(seed=0)
    assert infos["is_valid"].tolist() == [False, True]
    _, rewards, terminations, truncations, _ = envs.step([LOOK] * 2)
    assert (terminations.any(), truncations.tolist()) == (False, [True, False])
    assert rewards.tolist() == [0.0, 0.0]
    envs.close()


def test_a_member_that_raises_is_lost_alone_and_begins_anew():
    envs = vector(2)
    envs.reset(seed=0)
    step = envs.envs[0].step
    envs.envs[0].step = functools.partial(_raise, RuntimeError("a bug"))
    _, rewards, _, truncations, infos = envs.step([LOOK, "<answer>5</answer>"])
    assert (truncations.tolist(), rewards[0]) == ([True, False], 0.0)
    assert infos["ending"].tolist() == ["infrastructure", "answered"]
    assert set(infos["reward_terms"]) >= {"accuracy", "format", "tool_sequence", "tool_turn"}
    envs.envs[0].step = step
    envs.step(["", ""])
    *_, truncations, infos = envs.step([LOOK, LOOK])
    assert (truncations.any(), infos["is_valid"].all()) == (False, True)
    envs.close()


def _raise(error, action):
    raise error


def test_a_sandbox_that_goes_down_truncates_every_member_and_raises_nothing():
    sandbox = InProcessSandbox()
    envs = vector(3, sandbox=sandbox)
    envs.reset(seed=0)
    sandbox.is_down = True
    *_, truncations, infos = envs.step([LOOK, LOOK, "<answer>1</answer>"])
    assert truncations.tolist() == [True, True, False]
    assert infos["is_valid"].tolist() == [False, False, True]
    envs.close()


def test_without_autoreset_an_ended_member_waits_for_its_reset():
    envs = vector(2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step(["<answer>1</answer>", LOOK])
    _, rewards, terminations, _, infos = envs.step(["<answer>1</answer>", LOOK])
    assert (rewards[0], terminations.tolist()) == (0.0, [True, False])
    assert infos["reward_terms"]["accuracy"].tolist() == [0.0, 0.0]
    _, infos = envs.reset(options={"reset_mask": np.array([True, False])})
    assert infos["_task_id"].tolist() == [True, False]
    _, _, terminations, _, infos = envs.step([LOOK, LOOK])
    assert (terminations.any(), infos["turn"].tolist()) == (False, [1, 3])
    envs.close()


def test_every_member_can_be_given_its_own_task():
    envs = vector(2)
    ids = ["toy/counting/train/3", "toy/counting/train/4"]
    assert envs.reset(options={"task_id": ids})[1]["task_id"].tolist() == ids
    assert envs.reset(options={"task_id": ids[0]})[1]["task_id"].tolist() == [ids[0]] * 2
    with pytest.raises(ValueError, match="no task"):
        envs.reset(options={"task_id": "x"})
    with pytest.raises(ValueError, match="1 values for 2 members"):
        envs.reset(options={"task_id": ids[:1]})
    envs.close()


def test_seeds_are_one_for_all_or_one_each():
    envs = vector(2)
    both = envs.reset(seed=4)[1]["task_id"].tolist()
    assert envs.reset(seed=[4, 5])[1]["task_id"].tolist() == both
    with pytest.raises(ValueError, match="as many seeds"):
        envs.reset(seed=[4])
    envs.close()


def test_misuse_is_told_before_anything_is_stepped():
    envs = vector(2)
    with pytest.raises(ResetNeeded):
        envs.step(["", ""])
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="as many actions, got 1"):
        envs.step([""])
    envs.close()
    with pytest.raises(ValueError, match="num_envs"):
        vector(0)


def test_each_member_is_rendered():
    envs = vector(2, render_mode="ansi")
    envs.reset(seed=0)
    assert [text.splitlines()[-1] for text in envs.render()] == ["How many dots are there?"] * 2
    envs.close()
