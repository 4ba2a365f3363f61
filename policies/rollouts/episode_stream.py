"""Episodes of an asynchronous policy that are requested one by one, while others are played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ...envs.episode import Episode
from ...envs.parsing import Interface
from ...envs.types import Task, Trajectory
from ...sandbox.types import Sandbox
from ..interface import AsyncPolicy, CachingSource, ReplySource, Sampling
from .async_play import play_episode
from .running_episode import RunningEpisode
from .trained_with import open_episode

_WORKERS = 32
_UNDER_WAY = 2  # open episodes per requested reply, those that wait for their tools included


@dataclass(frozen=True, slots=True)
class StreamSetting:
    """Settings that all episodes of a stream share; see `rollout`.

    Attributes:
        sandbox: Sandbox in which code runs.
        sampling: Sampling parameters.
        interface: Tool interface; None for the one that the policy was trained with.
        max_turns: Turns per episode.
        batch_size: Limit of replies that are requested at the same time.
    """

    sandbox: Sandbox
    sampling: Sampling
    interface: Interface | None = None
    max_turns: int = 6
    batch_size: int = 128


class EpisodeStream:
    """Plays episodes in an event loop of its own, in the order in which they are requested.

    Args:
        policy: Policy that acts.
        setting: Settings of the episodes.
        on_lost: Called, in any thread, with the reason for each episode that infrastructure lost.
    """

    def __init__(
        self,
        policy: AsyncPolicy,
        setting: StreamSetting,
        *,
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._policy = policy
        self._setting = setting
        self._on_lost = on_lost
        self._writing = asyncio.Semaphore(setting.batch_size)
        self._room = asyncio.Semaphore(_UNDER_WAY * setting.batch_size)
        self._playing: set[Future[Trajectory]] = set()
        self._episodes: set[Episode] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Open the connections of the policy.

        Raises:
            Exception: What the policy raises where it cannot be connected to.
        """
        from anyio.from_thread import start_blocking_portal

        with ExitStack() as stack:
            stack.callback(self._close_open)  # once no thread is running
            workers = min(_WORKERS, _UNDER_WAY * self._setting.batch_size)
            self._pool = ThreadPoolExecutor(workers, thread_name_prefix="stream")
            stack.callback(self._pool.shutdown, cancel_futures=True)
            self._portal = stack.enter_context(start_blocking_portal())
            connection = self._policy.connect(sampling=self._setting.sampling)
            self._source: ReplySource = stack.enter_context(
                self._portal.wrap_async_context_manager(connection)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all episodes, wait for their tools, and close the connections."""
        for one in list(self._playing):
            one.cancel()
        self._stack.close()

    def request(self, task: Task, seed: int, *, policy_id: str) -> Future[Trajectory]:
        """Request an episode; it begins as soon as there is room for it.

        Args:
            task: Task.
            seed: Random seed of the episode.
            policy_id: Name of the policy in the trajectory.

        Returns:
            The trajectory to be; infrastructure is its ending where the model was unavailable.
        """
        found: Future[Trajectory] = self._portal.start_task_soon(self._play, task, seed, policy_id)
        self._playing.add(found)
        found.add_done_callback(self._playing.discard)
        return found

    async def _play(self, task: Task, seed: int, policy_id: str) -> Trajectory:
        loop, pool = asyncio.get_running_loop(), self._pool
        async with self._room:
            episode = await loop.run_in_executor(pool, self._open, task, seed)
            one = RunningEpisode.begin(episode)
            await play_episode(one, self._source, self._writing, pool, RunningEpisode.take)
            return await loop.run_in_executor(pool, self._finish, one, policy_id)

    def _open(self, task: Task, seed: int) -> Episode:
        setting = self._setting
        episode = open_episode(
            task,
            setting.sandbox,
            self._policy,
            interface=setting.interface,
            max_turns=setting.max_turns,
            seed=seed,
        )
        self._episodes.add(episode)
        return episode

    def _finish(self, one: RunningEpisode, policy_id: str) -> Trajectory:
        trajectory = one.episode.trajectory(policy_id, one.conversation.tokens)
        self._episodes.discard(one.episode)
        if isinstance(self._source, CachingSource):
            self._source.forget(one.conversation)
        one.episode.close()
        if not trajectory.is_valid or trajectory.accuracy is None:
            self._on_lost(one.episode.failure)
        return trajectory

    def _close_open(self) -> None:
        """Close the sessions of episodes that did not end."""
        for episode in self._episodes:
            episode.close()
