"""Output of a running stage on its Prefect page: log lines, progress bars, alarms."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Generator
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.runtime import deployment

from ...policies.training.grpo.alarms import Alarm
from ...sandbox.plain_text import escape_controls
from ..runs.progress import Bar, PlainProgress, Progress
from ..runs.session import RunSession
from ..store.lineage import StageRun
from .publishing import artifact_key, publish_alarm

UPDATE_SECONDS = 3.0
LAST_WORDS_SECONDS = 10.0
Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


@asynccontextmanager
async def on_page(session: RunSession) -> AsyncGenerator[None]:
    """Show the session's messages, bars and alarms on the page of the current flow run.

    What Prefect does not accept (an unreachable server) is missing on the page only: the stage
    continues, and its folder and MLflow have the same data.
    """
    post = _Post(asyncio.get_running_loop())
    before = session.progress, session.on_alarm
    # A worker's runs have no terminal: Prefect prints their log lines itself.
    outer = None if deployment.id and _is_terminal(session.progress) else session.progress
    session.progress = PageProgress(get_run_logger(), outer, post)

    def show_alarm(run: StageRun, alarm: Alarm) -> None:
        post.send(publish_alarm(run, alarm))

    session.on_alarm = show_alarm
    try:
        yield
    finally:
        session.progress, session.on_alarm = before
        await post.empty()


def _is_terminal(progress: Progress) -> bool:
    """Return whether progress goes to a terminal, not to the page of an enclosing flow."""
    return not isinstance(progress, PageProgress)


class _Post:
    """Sends calls to Prefect from the stage's thread to the flow's event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sent: list[Future[Any]] = []

    def send(self, call: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a call without waiting for it."""
        self._sent = [future for future in self._sent if not future.done()]
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        self._sent.append(future)
        return future

    async def empty(self) -> None:
        """Wait for pending calls, with a timeout."""
        waiting = [asyncio.wrap_future(future) for future in self._sent]
        if waiting:
            await asyncio.wait(waiting, timeout=LAST_WORDS_SECONDS)


class _LogLines(PlainProgress):
    """Plain progress whose lines are log records."""

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger = logger

    def say(self, text: str) -> None:
        level = logging.WARNING if text.startswith("ALARM ") else logging.INFO
        self._logger.log(level, "%s", escape_controls(text))


class PageProgress:
    """Progress that writes messages to the run's log, and bars to progress artifacts.

    Args:
        logger: Logger of the flow or task run.
        outer: Further display: the terminal, or the page of the enclosing flow.
        post: Sender of artifacts to Prefect.
    """

    def __init__(self, logger: Logger, outer: Progress | None, post: _Post) -> None:
        self._outer = outer
        self._post = post
        self._lines = _LogLines(logger)

    def say(self, text: str) -> None:
        """Log a line."""
        self._lines.say(text)
        if self._outer is not None:
            self._outer.say(text)

    @contextmanager
    def bar(self, name: str, total: int, *, done: int = 0) -> Generator[Bar]:
        """Log a line every ten seconds, and show a progress artifact on the page."""
        with self._line_bars(name, total, done) as bars:
            yield _PageBar(self._post, name, total, bars)

    @contextmanager
    def _line_bars(self, name: str, total: int, done: int) -> Generator[list[Bar]]:
        """Open the bars without an artifact: one artifact is enough for nested flows."""
        with ExitStack() as stack:
            bars = [stack.enter_context(self._lines.bar(name, total, done=done))]
            if isinstance(self._outer, PageProgress):
                bars += stack.enter_context(self._outer._line_bars(name, total, done))
            elif self._outer is not None:
                bars.append(stack.enter_context(self._outer.bar(name, total, done=done)))
            yield bars


class _PageBar:
    """A progress artifact, updated at most every few seconds and at the last step."""

    def __init__(self, post: _Post, name: str, total: int, bars: list[Bar]) -> None:
        self._post = post
        self._name = name
        self._total = total
        self._bars = bars
        self._artifact: Future[UUID] | None = None
        self._shown_at = 0.0

    def reach(self, done: int, *, note: str = "") -> None:
        """Show the number of steps done."""
        for bar in self._bars:
            bar.reach(done, note=note)
        now = time.monotonic()
        if done < self._total and now - self._shown_at < UPDATE_SECONDS:
            return
        self._shown_at = now
        share = 100.0 * min(1.0, done / max(1, self._total))
        text = f"{self._name} {done}/{self._total}  {note}".rstrip()
        if self._artifact is None:
            key = f"progress-{artifact_key(self._name)}"
            self._artifact = self._post.send(
                acreate_progress_artifact(share, key=key, description=text)
            )
        else:
            self._post.send(self._update(self._artifact, share, text))

    def ring(self, alarm: str) -> None:
        """Show that an alarm was raised on the outer bars; on the page it has its own artifact."""
        for bar in self._bars:
            bar.ring(alarm)

    async def _update(self, made: Future[UUID], share: float, text: str) -> None:
        artifact = await asyncio.wrap_future(made)
        await aupdate_progress_artifact(artifact, progress=share, description=text)
