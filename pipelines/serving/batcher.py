"""Answers concurrent requests in batches, in one thread.

A policy that generates token by token (`TokenStream`) answers with continuous batching: requests
join and leave at any token, and their replies can be read while they grow. Any other policy answers
the requests that come within a few milliseconds at once.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...policies.interface import (
    Conversation,
    Policy,
    PolicyUnavailableError,
    Reply,
    Sampling,
    StreamingPolicy,
    TokenStream,
)
from .reply_writer import Delta, ReplyWriter
from .request_error import RequestError

_log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.01


@dataclass(slots=True, eq=False)
class Job:
    """A request to answer.

    Attributes:
        conversations: One conversation per choice.
        sampling: Sampling parameters; a batch has one set of them.
        send: Function that takes each part of a reply, or an error; called in another thread.
        stop: Stop texts.
        is_streamed: Whether parts are sent while the reply grows.
        keeps_stop: Whether the stop text that ends a reply belongs to it.
        is_released: Whether nobody waits for the rest of the reply.
    """

    conversations: list[Conversation]
    sampling: Sampling
    send: Callable[[Delta | RequestError], None]
    stop: Sequence[str] = ()
    is_streamed: bool = False
    keeps_stop: bool = False
    is_released: bool = field(default=False, init=False)

    def rows(self) -> list[_Row]:
        """Return a row for each reply."""
        return [
            _Row(self, ReplyWriter(number, conversation, self.stop, keeps_stop=self.keeps_stop))
            for number, conversation in enumerate(self.conversations)
        ]

    def fail(self, error: Exception) -> None:
        """Report that the policy failed."""
        is_away = isinstance(error, PolicyUnavailableError)
        failure = RequestError(
            f"{type(error).__name__}: {error}",
            status=503 if is_away else 500,
            kind="server_error",
            retry_seconds=1 if is_away else None,
        )
        self.send(failure)


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """One reply in generation."""

    job: Job
    writer: ReplyWriter

    @property
    def conversation(self) -> Conversation:
        return self.writer.conversation

    def finish(self, reply: Reply) -> None:
        self.job.send(self.writer.finish(reply))


class Batcher:
    """Queue of jobs, and the thread that answers them.

    Args:
        policy: Policy that answers.
        batch_size: Conversations answered at once.
        most_waiting: Maximum number of open requests; more are rejected.
    """

    def __init__(self, policy: Policy, *, batch_size: int = 32, most_waiting: int = 128) -> None:
        self._policy = policy
        self._batch_size = batch_size
        self._most_waiting = most_waiting
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._open: set[Job] = set()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="model-server", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; the caller releases it.

        Raises:
            RequestError: Too many requests wait already (429), or the server is closing (503).
        """
        with self._changed:
            if self._is_closed:
                raise _closing()
            if len(self._open) >= self._most_waiting:
                raise RequestError(
                    f"{len(self._open)} requests are waiting already; retry later",
                    status=429,
                    kind="rate_limit_error",
                    retry_seconds=1,
                )
            self._open.add(job)
            self._waiting.append(job)
            self._changed.notify()

    def release(self, job: Job) -> None:
        """Close a submitted job; what is left of its replies is not generated."""
        with self._changed:
            self._open.discard(job)
            job.is_released = True
            with contextlib.suppress(ValueError):
                self._waiting.remove(job)

    def cancel(self) -> None:
        """Report to all open requests that the server is closing, and accept no others."""
        with self._changed:
            self._is_closed = True
            for job in self._open:
                job.send(_closing())

    def close(self) -> None:
        """Stop the thread once all waiting requests are answered."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (job := self._take()) is not None:
            try:
                self._answer(job)
            except Exception as error:  # noqa: BLE001 - the server survives a request's failure
                _log.exception("the policy failed")
                job.fail(error)

    def _take(self, sampling: Sampling | None = None, seconds: float | None = None) -> Job | None:
        """Return the next job within the time; None if its sampling is another, or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed, seconds)
            if not self._waiting or sampling not in (None, self._waiting[0].sampling):
                return None
            return self._waiting.popleft()

    def _answer(self, first: Job) -> None:
        if not isinstance(self._policy, StreamingPolicy):
            self._answer_whole(first)
            return
        with self._policy.stream(sampling=first.sampling, slots=self._batch_size) as stream:
            if isinstance(stream, TokenStream):
                self._answer_in_stream(first, stream)
                return
        self._answer_whole(first)

    def _answer_in_stream(self, first: Job, stream: TokenStream) -> None:
        batch = _StreamedBatch(stream, most_kept=self._batch_size)
        batch.add(first)
        try:
            while batch.is_busy:
                while batch.has_room and (job := self._take(first.sampling, 0.0)) is not None:
                    batch.add(job)
                batch.step()
        except Exception as error:  # noqa: BLE001 - the server survives a request's failure
            _log.exception("the policy failed")
            batch.fail(error)

    def _answer_whole(self, first: Job) -> None:
        jobs, end = [first], time.monotonic() + _GATHER_SECONDS
        while sum(len(job.conversations) for job in jobs) < self._batch_size:
            job = self._take(first.sampling, max(0.0, end - time.monotonic()))
            if job is None:
                break
            jobs.append(job)
        rows = [row for job in jobs for row in job.rows()]
        try:
            asked = [row.conversation for row in rows]
            replies = self._policy.reply(asked, sampling=first.sampling)
            for row, reply in zip(rows, replies, strict=True):
                row.finish(reply)
        except Exception as error:  # noqa: BLE001 - the server survives a request's failure
            _log.exception("the policy failed")
            for job in jobs:
                job.fail(error)


def _closing() -> RequestError:
    return RequestError("the server is closing", status=503, kind="server_error")


class _StreamedBatch:
    """Rows that join and leave a stream.

    Args:
        stream: Stream that generates the replies.
        most_kept: Number of finished conversations whose cached state is kept for their next turn.
    """

    def __init__(self, stream: TokenStream, *, most_kept: int) -> None:
        self._stream = stream
        self._most_kept = most_kept
        self._rows: dict[int, _Row] = {}  # by the identity of the conversation
        self._pending: deque[_Row] = deque()
        self._finished: deque[Conversation] = deque()

    @property
    def is_busy(self) -> bool:
        return bool(self._rows or self._pending)

    @property
    def has_room(self) -> bool:
        return len(self._pending) < self._stream.free

    def add(self, job: Job) -> None:
        self._pending += job.rows()

    def step(self) -> None:
        """Let rows join and leave, and draw a token of each."""
        for row in [row for row in self._rows.values() if row.job.is_released]:
            self._end(row)
        waiting = [row for row in self._pending if not row.job.is_released]
        joining, self._pending = waiting[: self._stream.free], deque(waiting[self._stream.free :])
        if joining:
            self._join(joining)
        for conversation, reply in self._stream.advance():
            self._rows[id(conversation)].finish(reply)
            del self._rows[id(conversation)]
            self._keep(conversation)
        for row in list(self._rows.values()):
            if row.job.is_streamed or row.job.stop:
                self._read(row)

    def fail(self, error: Exception) -> None:
        """Report a failure to all rows."""
        for job in {row.job for row in (*self._rows.values(), *self._pending)}:
            job.fail(error)

    def _join(self, rows: Sequence[_Row]) -> None:
        free = self._stream.free
        try:
            self._stream.join([row.conversation for row in rows])
        except Exception as error:  # an image that the model cannot read fails its request alone
            if self._stream.free != free:  # some joined: the stream is of no use any more
                self._rows |= {id(row.conversation): row for row in rows}
                raise
            if len(rows) == 1:
                _log.exception("the policy failed")
                rows[0].job.fail(error)
                return
            for row in rows:
                self._join([row])
            return
        self._rows |= {id(row.conversation): row for row in rows}

    def _read(self, row: _Row) -> None:
        piece = self._stream.piece(row.conversation)
        delta = None if piece is None else row.writer.write(piece)
        if delta is not None:
            row.job.send(delta)
        if row.writer.is_stopped:
            row.finish(self._end(row))

    def _end(self, row: _Row) -> Reply:
        del self._rows[id(row.conversation)]
        return self._stream.end(row.conversation)

    def _keep(self, conversation: Conversation) -> None:
        self._finished.append(conversation)
        if len(self._finished) > self._most_kept:
            self._stream.forget(self._finished.popleft())
