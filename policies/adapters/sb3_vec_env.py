"""Stable-Baselines3's vector environment with members that step at the same time.

Importing this module needs the extra ``sb3``; nothing else of ours imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import gymnasium
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

_MOST_THREADS = 64


class ThreadVecEnv(DummyVecEnv):
    """A `DummyVecEnv` in threads: the sandbox's sessions do the work, beside one another.

    It gives the same trajectories, and one sandbox serves all; pass it as ``vec_env_cls`` to
    ``make_vec_env``.
    """

    def __init__(self, env_fns: list[Callable[[], gymnasium.Env[Any, Any]]]) -> None:
        super().__init__(env_fns)
        self._pool = ThreadPoolExecutor(min(len(env_fns), _MOST_THREADS), "sb3-member")

    def step_wait(
        self,
    ) -> tuple[VecEnvObs, NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """Step every member; one whose episode ends begins the next at once."""
        for place, seen in enumerate(self._pool.map(self._step_member, range(self.num_envs))):
            self._save_obs(place, seen)
        rewards, dones = self.buf_rews.copy(), self.buf_dones.copy()
        return self._obs_from_buf(), rewards, dones, deepcopy(self.buf_infos)

    def close(self) -> None:
        """End the threads and close the members."""
        self._pool.shutdown()
        super().close()

    def _step_member(self, place: int) -> Any:  # noqa: ANN401 - whatever the members observe
        env = self.envs[place]
        seen, reward, terminated, truncated, info = env.step(self.actions[place])
        self.buf_rews[place] = reward
        self.buf_dones[place] = terminated or truncated
        info["TimeLimit.truncated"] = truncated and not terminated
        if terminated or truncated:
            info["terminal_observation"] = seen
            seen, self.reset_infos[place] = env.reset()
        self.buf_infos[place] = info
        return seen
