"""Costs of sessions besides time: idle memory, time to die, a thousand sessions at once."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from codedance.sandbox import SandboxError
from codedance.sandbox.local import LocalSandbox
from codedance.sandbox.types import Session

from .processes import available_mb, descendants, memory_of

KILLS = {
    "idle": "",
    "Python loop": "while True: pass",
    "BLAS loop": "import numpy as np\na = np.ones((900, 900))\nwhile True: a @ a",
    "400 MB held": "import time\nx = b'x' * (400 << 20)\ntime.sleep(60)",
}
"""Code that a session runs when it is killed."""


@dataclass(frozen=True, slots=True)
class IdleMemory:
    """Memory of one idle session, medians over several, in MB.

    Attributes:
        private: Pages written by this session only.
        page_tables: Page tables of the kernel.
        proportional: PSS, including its share of the pages shared with the zygote.
    """

    private: float
    page_tables: float
    proportional: float


@dataclass(frozen=True, slots=True)
class Crowd:
    """Many sessions alive at once.

    Attributes:
        sessions: Number of sessions.
        open_seconds: Time to open all and run the first turn of each.
        turns_a_second: Turns per second afterwards, from several threads.
        median_ms: Median time of those turns.
        slowest_ms: 95th percentile of the time of those turns.
        memory_mb: Memory per session, as the drop in the machine's available memory.
        stopped_by: Reason for fewer sessions than requested; None if all were opened.
    """

    sessions: int
    open_seconds: float
    turns_a_second: float
    median_ms: float
    slowest_ms: float
    memory_mb: float
    stopped_by: str | None


def idle_memory(sandbox: LocalSandbox, *, sessions: int = 12) -> IdleMemory | None:
    """Measure idle sessions after one turn; None if ``/proc`` does not show their memory."""
    before = set(descendants(sandbox.process_id))
    with contextlib.ExitStack() as stack:
        for _ in range(sessions):
            stack.enter_context(sandbox.session()).run("print(1 + 1)")
        born = set(descendants(sandbox.process_id)) - before
        with contextlib.suppress(OSError, KeyError):
            seen = [memory_of(process_id) for process_id in born]
            if seen:
                return IdleMemory(
                    *(statistics.median(column) for column in zip(*seen, strict=True))
                )
    return None


def kill_seconds(sandbox: LocalSandbox, code: str) -> float | None:
    """Return the time from the signal to a session's death; None if its process is not found."""
    before = set(descendants(sandbox.process_id))
    with sandbox.session() as session:
        session.run("print(1 + 1)")
        born = set(descendants(sandbox.process_id)) - before
        if len(born) != 1:
            return None
        handle = os.pidfd_open(born.pop())
        try:
            return _killed(session, handle, code)
        finally:
            os.close(handle)


def crowd(sandbox: LocalSandbox, sessions: int) -> Crowd:
    """Open many sessions, keep them all open, and run turns in them."""
    available, started = available_mb(), time.perf_counter()
    opened: list[Session] = []
    stopped_by: str | None = None
    try:
        for _ in range(sessions):
            opened.append(sandbox.session())
            opened[-1].run("x = 1")
    except (SandboxError, OSError) as error:
        stopped_by = str(error)
    open_seconds = time.perf_counter() - started
    memory = (available - available_mb()) / max(1, len(opened))
    started = time.perf_counter()
    with ThreadPoolExecutor(8) as threads:
        turns = sorted(threads.map(_timed_turn, opened))
    seconds = time.perf_counter() - started
    for session in opened:
        session.close()
    return Crowd(
        sessions=len(opened),
        open_seconds=open_seconds,
        turns_a_second=len(turns) / seconds,
        median_ms=1e3 * turns[len(turns) // 2],
        slowest_ms=1e3 * turns[len(turns) * 95 // 100],
        memory_mb=memory,
        stopped_by=stopped_by,
    )


def _timed_turn(session: Session) -> float:
    started = time.perf_counter()
    if session.run("print(x + 1)").stdout != "2\n":
        raise RuntimeError("a session of the crowd lost its variable")
    return time.perf_counter() - started


def _killed(session: Session, handle: int, code: str) -> float:
    runner = threading.Thread(target=_run_quietly, args=(session, code))
    if code:
        runner.start()
        time.sleep(0.4)  # until it loops, or has allocated its memory
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    started = time.perf_counter()
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    poller.poll()
    seconds = time.perf_counter() - started
    if code:
        runner.join()
    return seconds


def _run_quietly(session: Session, code: str) -> None:
    with contextlib.suppress(SandboxError):
        session.run(code)
