"""Vector environment for Stable-Baselines3 whose environments step concurrently.

Importing this module requires the extra ``sb3``; no other module of the package imports it.
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
    """A multithreaded `DummyVecEnv`: the sandbox's sessions do the work concurrently.

    It yields the same trajectories, and one sandbox serves all environments; pass it as
    ``vec_env_cls`` to ``make_vec_env``.
    """

    def __init__(self, env_fns: list[Callable[[], gymnasium.Env[Any, Any]]]) -> None:
        super().__init__(env_fns)
        self._pool = ThreadPoolExecutor(min(len(env_fns), _MOST_THREADS), "sb3-member")

    def step_wait(
        self,
    ) -> tuple[VecEnvObs, NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """Step every environment; one whose episode ends is reset at once."""
        for place, seen in enumerate(self._pool.map(self._step_member, range(self.num_envs))):
            self._save_obs(place, seen)
        rewards, dones = self.buf_rews.copy(), self.buf_dones.copy()
        return self._obs_from_buf(), rewards, dones, deepcopy(self.buf_infos)

    def close(self) -> None:
        """End the threads and close the environments."""
        self._pool.shutdown()
        super().close()

    def _step_member(self, place: int) -> Any:  # noqa: ANN401 - the environments' observation type
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
