"""Our threaded VecEnv returns the same as Stable-Baselines3's own loop."""

from __future__ import annotations

import re
import threading

import gymnasium as gym
import numpy as np
import pytest
from codedance.policies.adapters.sb3_vec_env import ThreadVecEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of SB3 only

ID = "codedance.envs:codedance/VisualCodeMenu-v0"
CLOCK = r"'t': [0-9.]+"  # Monitor's time, in an ended episode's info
SETTINGS = {"families": ["count"], "max_turns": 2, "entries": ["count_colour", "answer_number"]}


def played(kind):
    envs = make_vec_env(ID, n_envs=3, seed=4, vec_env_cls=kind, env_kwargs=SETTINGS)
    draw = np.random.default_rng(0)
    seen = [envs.reset()]
    for _ in range(5):
        actions = draw.integers(0, envs.action_space.nvec, size=(3, 4))
        seen.append(envs.step(actions))
    envs.close()
    return repr(seen), np.concatenate([step[1] for step in seen[1:]])


def test_threads_produce_the_same_trajectories_and_end_with_close():
    before = threading.active_count()
    ours, rewards = played(ThreadVecEnv)
    theirs, _ = played(DummyVecEnv)
    assert re.sub(CLOCK, "", ours) == re.sub(CLOCK, "", theirs)
    assert len(set(rewards.tolist())) > 1
    assert threading.active_count() == before


def test_members_step_at_the_same_time():
    meeting = threading.Barrier(2, timeout=30)

    class Waits(gym.Env):
        observation_space = gym.spaces.Discrete(2)
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return 0, {}

        def step(self, action):
            meeting.wait()  # until the other one also steps
            return 1, float(action), bool(action), False, {}

    envs = ThreadVecEnv([Waits, Waits])
    envs.reset()
    seen, rewards, dones, infos = envs.step(np.array([0, 1]))
    assert (seen.tolist(), rewards.tolist(), dones.tolist()) == ([1, 0], [0.0, 1.0], [False, True])
    assert infos[1]["terminal_observation"] == 1
    envs.close()
