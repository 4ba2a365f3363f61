"""One session's process as the host sees it: send a block, wait within its limits, kill it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from PIL import Image

from ..types import Execution, Limits, Outcome
from ..worker.framing import LENGTHS
from .connection import Connection, Watch
from .frames import FrameError, Reply, decode_lengths, decode_message, decode_reply, encode_block
from .kernel_view import KernelView
from .shown_pictures import as_picture, picture_memory
from .turn_clock import Step, TurnClock
from .turn_gate import Place
from .zygote import SessionHandles, ZygoteDied

_START_SECONDS = 60.0
_PATIENCE_SECONDS = 0.2  # after so long a turn that only waits lends its place to others
_BUSY_PATIENCE_SECONDS = 0.8  # and one that computes


class ProcessDied(Exception):  # noqa: N818 - an event, judged by the caller
    """The process ended, or broke the protocol and counts as ended."""


class DiedAtBirth(ProcessDied):
    """It ended before any model code ran: no block is to blame."""


class _Overrun(Exception):  # noqa: N818 - an event within this file
    """A block went on past its time-out and the grace after it."""


class SessionProcess:
    """A running session; not thread-safe, its session holds a lock.

    Args:
        handles: What the zygote gave.
        limits: Bounds on time and on what comes back.
        is_zygote_alive: Whether the zygote that forked it still lives: if it does, the death of
            the process was the block's own doing.
    """

    def __init__(
        self, handles: SessionHandles, limits: Limits, is_zygote_alive: Callable[[], bool]
    ) -> None:
        self.is_zygote_alive = is_zygote_alive
        self._connection = Connection(handles.connection)
        self._process_fd = handles.process_fd
        self._zygote = handles.zygote
        self._limits = limits
        self._kernel_view = KernelView(handles.process_fd)
        self._turn = 0
        self._is_ready = False
        self._is_stopped = False

    def run(self, code: str, place: Place, *, slack: float = 1.0) -> Execution:
        """Run a block and judge how it ended; time limits are multiplied by ``slack``.

        Args:
            code: The block.
            place: What it holds at the gate; lent to others when the block is slow.
            slack: More time than the limits say, for a replay.

        Raises:
            ProcessDied: It ended before its reply, or what it sent was no reply.
            DiedAtBirth: It ended before the block was sent.
            SandboxError: The machine gave it no core.
        """
        self._await_ready()
        if not self._connection.is_quiet():
            kind = ProcessDied if self._turn else DiedAtBirth
            raise kind("it ended, or answered a block that it had not been given")
        self._go_on()
        self._turn += 1
        clock = TurnClock(self._kernel_view, self._limits, slack=slack)
        watch = _TurnWatch(self, clock, place)
        try:
            frame = encode_block(self._turn, code, clock.wall_limit, clock.cpu_limit)
            self._connection.send(frame, watch)
            reply = self._receive_reply(watch)
            images = self._receive_pictures(reply.sizes, watch)
        except _Overrun:
            return Execution(
                outcome=Outcome.TIMEOUT,
                error=f"TimeoutError: the block {clock.verdict()} and was killed",
                wall_seconds=clock.wall_seconds,
                cpu_seconds=clock.cpu_seconds,
            )
        except (OSError, FrameError) as error:
            raise ProcessDied(str(error)) from error
        wall, cpu = clock.wall_seconds, clock.cpu_seconds
        self._pause()
        is_late = reply.outcome is Outcome.OK and clock.is_over
        return Execution(
            outcome=Outcome.TIMEOUT if is_late else reply.outcome,
            stdout=reply.stdout,
            stderr=reply.stderr,
            error=f"TimeoutError: the block {clock.verdict()}" if is_late else reply.error,
            images=images,
            wall_seconds=wall,
            cpu_seconds=cpu,
        )

    @property
    def folders(self) -> tuple[str, ...]:
        """Where Python lies for it: what digests leave out, as it lies elsewhere elsewhere."""
        return self._zygote.folders

    def kill(self) -> None:
        """End the process at once, whatever another thread waits for; harmless when repeated."""
        self._signal(signal.SIGKILL)

    def interrupt(self) -> None:
        """Tell the code inside that its time is up; it may catch that, if not for long."""
        self._signal(signal.SIGALRM)

    def close(self) -> None:
        """Kill it and let go of it; a second call does nothing."""
        if self._process_fd < 0:
            return
        self.kill()
        process_fd, self._process_fd = self._process_fd, -1
        os.close(process_fd)
        self._kernel_view.close()
        self._connection.close()

    def _pause(self) -> None:
        """Stop it: no thread, timer or handler that it left works between its turns."""
        self._signal(signal.SIGSTOP)
        self._is_stopped = True

    def _go_on(self) -> None:
        if self._is_stopped:
            self._signal(signal.SIGCONT)
            self._is_stopped = False

    def _signal(self, number: signal.Signals) -> None:
        if self._process_fd >= 0:
            try:
                signal.pidfd_send_signal(self._process_fd, number)
            except ProcessLookupError:
                return
            except PermissionError:  # a container's user is not ours; its zygote may
                with contextlib.suppress(ZygoteDied):
                    self._zygote.signal_session(self._process_fd, number)

    def _await_ready(self) -> None:
        if self._is_ready:
            return
        try:
            header, _ = self._receive_header(_StartWatch())
            message = decode_message(header, self._limits)
        except (OSError, FrameError, _Overrun) as error:
            raise DiedAtBirth(f"a session died while starting: {error}") from error
        if message[:1] != ["ready"]:
            raise DiedAtBirth(f"a session's walls could not be built: {message[1:]}")
        self._is_ready = True

    def _receive_reply(self, watch: Watch) -> Reply:
        header, blob_bytes = self._receive_header(watch)
        reply = decode_reply(header, blob_bytes, self._limits)
        if reply.turn != self._turn:
            raise FrameError(f"a reply to turn {reply.turn} in turn {self._turn}")
        return reply

    def _receive_pictures(
        self, sizes: tuple[tuple[int, int], ...], watch: Watch
    ) -> tuple[Image.Image, ...]:
        images: list[Image.Image] = []
        for size in sizes:
            memory = picture_memory(size)
            self._connection.receive_into(memory, watch)
            images.append(as_picture(memory, size))
        return tuple(images)

    def _receive_header(self, watch: Watch) -> tuple[bytearray, int]:
        prefix = self._connection.receive(LENGTHS.size, watch)
        header_bytes, blob_bytes = decode_lengths(prefix, self._limits)
        return self._connection.receive(header_bytes, watch), blob_bytes


class _TurnWatch:
    """Strikes and kills when the clock says so, and lends a slow turn's place to others."""

    def __init__(self, process: SessionProcess, clock: TurnClock, place: Place) -> None:
        self._process = process
        self._clock = clock
        self._place = place

    @property
    def seconds_to_look(self) -> float:
        return self._clock.seconds_to_look

    def look(self) -> None:
        step = self._clock.look()
        if step is Step.KILL:
            raise _Overrun
        if step is Step.INTERRUPT:
            self._process.interrupt()
        wall = self._clock.wall_seconds
        if wall >= _PATIENCE_SECONDS:
            is_busy = self._clock.is_busy
            if not is_busy or wall >= _BUSY_PATIENCE_SECONDS:
                self._place.lend(is_busy=is_busy)


class _StartWatch:
    """Bounds the wait for a session's first word."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + _START_SECONDS

    @property
    def seconds_to_look(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def look(self) -> None:
        if time.monotonic() >= self._deadline:
            raise _Overrun
