"""Feeds a stage's metrics to tracking tools while it runs; the stage never waits for them.

Each tool has a thread that reads the run's folder. A tool that fails is reported once and tried
again; the other tools and the stage go on. What it lacks at the end is said; `sending` sends it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ...config.server_settings import SinkName
from ...store.claims import ClaimLostError
from .points import PointReader
from .sink import MetricsSink, SinkRun, SinkStatus, open_sink

PERIOD_SECONDS = 2.0
RETRY_SECONDS = 30.0
LAST_CHANCE_SECONDS = 10.0
"""Longest time that the end of a stage waits, for all tools together."""
Say = Callable[[str], None]


class SinkThread:
    """Feeds one tool with the points of a run, until closed.

    Args:
        name: The tool.
        run: The run.
        folder: The run's folder.
        say: Called with a message where the run is shown, and at the tool's first failure.
        guard: Called before the folder is read; its `ClaimLostError` ends the feeding.
    """

    def __init__(
        self,
        name: SinkName,
        run: SinkRun,
        folder: Path,
        *,
        say: Say,
        guard: Callable[[], None] | None = None,
    ) -> None:
        self._name: SinkName = name
        self._run, self._folder, self._say = run, folder, say
        self._guard = guard or (lambda: None)
        self._points: PointReader | None = None
        self._sink: MetricsSink | None = None
        self._status: SinkStatus = "failed"
        self._has_failed = self._is_lost = False
        self.failures = 0
        """Number of tries that failed."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"{name}-sink", daemon=True)
        self._thread.start()

    def end(self, status: SinkStatus) -> None:
        """Have the thread feed the tool once more, and end the run; returns at once."""
        self._status = status
        self._closing.set()

    def wait(self, seconds: float) -> None:
        """Wait for the thread's end, and say if the tool lacks points."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._say(f"{self._name} does not answer; {self._remedy}")
        elif self._has_failed and not self._is_lost:
            tries = f"{self.failures} failed tries"
            self._say(f"{self._name} lacks metrics after {tries}; {self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"`codedance metrics {self._run.id} --to {self._name}` sends them"

    def _work(self) -> None:
        while not self._is_lost:
            is_last = self._closing.is_set()
            self._pass(is_last=is_last)
            if is_last:
                return
            self._closing.wait(RETRY_SECONDS if self._has_failed else PERIOD_SECONDS)

    def _pass(self, *, is_last: bool) -> None:
        try:
            self._guard()
            self._feed()
            if is_last and self._sink is not None:
                self._end(self._sink)
            self._has_failed = False
        except ClaimLostError:  # the run is another process's, which feeds the tool as well
            self._is_lost = True
            self._drop()
        except Exception as error:  # noqa: BLE001 - whatever a client raises, the stage continues
            self.failures += 1
            self._has_failed = True
            self._drop()
            if self.failures == 1:
                text = str(error).strip().partition("\n")[0][:120]
                why = f"{type(error).__name__}: {text}"
                self._say(f"{self._name} failed ({why}); the run goes on, and it is tried again")

    def _feed(self) -> None:
        """Hand the new points over; a tool that is not open is opened first."""
        if self._points is None:
            self._points = PointReader(self._folder, self._name)
        points = self._points.read()
        if self._sink is None:
            run = replace(self._run, sent=self._points.sent, newest=self._points.newest)
            sink = open_sink(self._name)
            place = sink.begin(run)
            self._sink = sink
            if self.failures == 0:
                self._say(f"metrics also in {place}")
        if points:
            self._sink.log(points)
            self._points.confirm(is_kept=self._sink.keeps)

    def _end(self, sink: MetricsSink) -> None:
        """End the tool's run, after which it keeps all that it took."""
        self._sink = None
        sink.end(self._status)
        if self._points is not None and not sink.keeps:
            self._points.confirm(is_kept=True)

    def _drop(self) -> None:
        """Close the tool's client, whatever it says; the next try opens a new one."""
        sink, self._sink = self._sink, None
        if self._points is not None:
            self._points.again()
        if sink is not None:
            with suppress(Exception):
                sink.end("failed")


@contextmanager
def fed(
    names: Sequence[SinkName],
    run: SinkRun,
    folder: Path,
    *,
    say: Say,
    guard: Callable[[], None] | None = None,
    stopped_by: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
) -> Generator[None]:
    """Feed tools with the points of a run within the context.

    Args:
        names: The tools.
        run: The run.
        folder: The run's folder.
        say: Called with messages for the terminal.
        guard: Called before each reading; raises `ClaimLostError` if the run is another process's.
        stopped_by: Errors that mean that the run was interrupted, and did not fail.
    """
    threads = [SinkThread(name, run, folder, say=say, guard=guard) for name in names]
    status: SinkStatus = "failed"
    try:
        yield
        status = "finished"
    except stopped_by:
        status = "interrupted"
        raise
    finally:
        for thread in threads:
            thread.end(status)
        deadline = time.monotonic() + LAST_CHANCE_SECONDS
        for thread in threads:
            thread.wait(deadline - time.monotonic())
