"""Episodes of an asynchronous policy: each goes on by itself, none waits for another's turn."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, as_completed

from ..interface import AsyncPolicy, PolicyUnavailableError, Reply, ReplySource, Sampling
from .running_episode import RunningEpisode

Take = Callable[[RunningEpisode, "Reply | PolicyUnavailableError"], None]
"""Applies a reply to its episode; called in a thread."""


class AsyncPlay:
    """Runs episodes to their ends, each as a task of an event loop in a thread of its own.

    Args:
        policy: Policy that acts.
        sampling: Sampling parameters.
        pool: Executor in which replies are applied.
        take: Function that applies a reply.
        at_once: Limit of replies that are requested at the same time.
        most: Limit of open episodes, those that wait for their tools included.
    """

    def __init__(
        self,
        policy: AsyncPolicy,
        sampling: Sampling,
        pool: Executor,
        take: Take,
        *,
        at_once: int,
        most: int,
    ) -> None:
        self._policy = policy
        self._sampling = sampling
        self._pool = pool
        self._take = take
        self._writing = asyncio.Semaphore(at_once)
        self._room = threading.Semaphore(most)
        self._failure: BaseException | None = None

    def play(self, episodes: Iterator[RunningEpisode], report: Callable[[], None]) -> None:
        """Run episodes, opened in order as others end, until all are over.

        Args:
            episodes: Episodes; the next one is opened when there is room for it.
            report: Called in this thread after episodes have ended.
        """
        from anyio.from_thread import start_blocking_portal

        tasks: list[Future[None]] = []
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(
                self._policy.connect(sampling=self._sampling)
            ) as source,
        ):
            try:
                while self._room.acquire() and self._failure is None:
                    one = next(episodes, None)
                    if one is None:
                        break
                    tasks.append(portal.start_task_soon(self._play, source, one))
                    tasks[-1].add_done_callback(self._finish)
                for task in as_completed(tasks):
                    task.result()
                    report()
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise

    async def _play(self, source: ReplySource, one: RunningEpisode) -> None:
        """Run one episode to its end."""
        await play_episode(one, source, self._writing, self._pool, self._take)

    def _finish(self, task: Future[None]) -> None:
        """Make room for the next episode; after an error none is opened any more."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
        self._room.release()


async def play_episode(
    one: RunningEpisode,
    source: ReplySource,
    writing: asyncio.Semaphore,
    pool: Executor,
    take: Take,
) -> None:
    """Run one episode to its end.

    Args:
        one: Episode.
        source: Source of the replies.
        writing: Limit of replies that are requested at the same time.
        pool: Executor in which replies are applied.
        take: Function that applies a reply.
    """
    loop = asyncio.get_running_loop()
    while not one.is_over:
        reply: Reply | PolicyUnavailableError
        async with writing:
            begun = time.monotonic()
            try:
                reply = (await source.reply(one.conversation)).timed(time.monotonic() - begun)
            except PolicyUnavailableError as error:
                reply = error
        await loop.run_in_executor(pool, take, one, reply)
