"""Scheduler of continuous batching: episodes free their slot while they wait for a tool.

In the deterministic order, batch composition (which episodes join, when, and beside which others)
is a function of the sampled tokens. Time is counted in rounds of drawn tokens: a tool has at least
one whole round; episodes then rejoin in the order in which their replies were finished, and if a
tool is not done by then, the others wait. In the other order episodes rejoin as their tools finish:
no slot stays empty for a slow tool, and rounding can differ from run to run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from queue import SimpleQueue

from ..interface import Conversation, Reply, ReplyStream
from .running_episode import RunningEpisode

Work = Callable[[RunningEpisode, Reply], None]
"""Applies a reply, and finalizes an episode that it ends; called in a thread."""

_ROUND = 8  # tokens drawn per slot between two points at which episodes can join


@dataclass(frozen=True, slots=True, eq=False)
class _Away:
    """An episode whose reply is being processed."""

    one: RunningEpisode
    round: int
    work: Future[None]


class Scheduler:
    """Runs episodes to their ends with continuous batching.

    Args:
        stream: Stream that generates replies.
        pool: Executor that processes replies.
        work: Function that processes a reply.
        deterministic: Whether batch composition depends on the sampled tokens alone.
        most: Limit of open episodes, those that wait for their tools included.
    """

    def __init__(
        self,
        stream: ReplyStream,
        pool: Executor,
        work: Work,
        *,
        deterministic: bool,
        most: int,
    ) -> None:
        self._stream = stream
        self._pool = pool
        self._work = work
        self._deterministic = deterministic
        self._most = most
        self._writing: dict[int, RunningEpisode] = {}
        self._joined: dict[int, float] = {}
        self._away: deque[_Away] = deque()
        self._back: SimpleQueue[_Away] = SimpleQueue()
        self._absent = 0
        self._round = 0

    def play(self, episodes: Iterator[RunningEpisode]) -> None:
        """Run episodes, opened in order as slots become free, until all are over."""
        coming: Iterator[RunningEpisode] | None = episodes
        while True:
            joining = self._returning()
            while coming is not None and self._has_room(len(joining)):
                fresh = next(coming, None)
                if fresh is None:
                    coming = None
                else:
                    joining.append(fresh)
            if not joining and not self._writing:
                if not self._absent:
                    return
                self._wait()
                continue
            self._join(joining)
            self._write()

    def _has_room(self, joining: int) -> bool:
        under_way = joining + len(self._writing) + self._absent
        return joining < self._stream.free and under_way < self._most

    def _join(self, joining: list[RunningEpisode]) -> None:
        now = time.monotonic()
        for one in joining:
            self._writing[id(one.conversation)] = one
            self._joined[id(one.conversation)] = now
        self._stream.join([one.conversation for one in joining])

    def _write(self) -> None:
        """Draw a round of tokens; finished replies are submitted for processing."""
        for _ in range(_ROUND):
            for conversation, reply in self._stream.advance():
                self._send(conversation, reply)
            if not self._writing:
                break
        self._round += 1

    def _send(self, conversation: Conversation, reply: Reply) -> None:
        one = self._writing.pop(id(conversation))
        timed = reply.timed(time.monotonic() - self._joined.pop(id(conversation)))
        away = _Away(one, self._round, self._pool.submit(self._work, one, timed))
        self._absent += 1
        if self._deterministic:
            self._away.append(away)
        else:
            away.work.add_done_callback(lambda _: self._back.put(away))

    def _returning(self) -> list[RunningEpisode]:
        """Return the episodes that rejoin, as many as slots are free; drop those that ended."""
        returning: list[RunningEpisode] = []
        while len(returning) < self._stream.free:
            away = self._due()
            if away is None:
                break
            away.work.result()
            self._absent -= 1
            if away.one.is_over:
                self._stream.forget(away.one.conversation)
            else:
                returning.append(away.one)
        return returning

    def _due(self) -> _Away | None:
        """Return the next episode that is due to rejoin; None where there is none yet."""
        while not self._back.empty():
            self._away.append(self._back.get())
        is_due = bool(self._away)
        if is_due and self._deterministic:
            is_due = self._round >= self._away[0].round + 2
        return self._away.popleft() if is_due else None

    def _wait(self) -> None:
        """Advance time: nothing can be generated before a tool is done."""
        if self._deterministic:
            self._round += 1
        else:
            self._away.append(self._back.get())
