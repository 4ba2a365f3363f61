"""One session's process as the host sees it: send a block, wait within its limits, kill it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable

from PIL import Image

from .frames import FrameError, Reply, decode_lengths, decode_message, decode_reply, encode_block
from .kernel_view import KernelView
from .types import Execution, Limits, Outcome, SandboxError
from .worker.framing import LENGTHS
from .zygote import SessionHandles, ZygoteDied

_START_SECONDS = 60.0
_GRACE_SECONDS = 1.0  # from the soft time-out inside to the kill from outside
_SLICE_SECONDS = 1.0  # how often a running block's processor time is looked at, at least
_NEWS = select.POLLIN | select.POLLHUP | select.POLLERR


class ProcessDied(Exception):  # noqa: N818 - an event, judged by the caller
    """The process ended, or broke the protocol and counts as ended."""


class DiedAtBirth(ProcessDied):
    """It ended before any model code ran: no block is to blame."""


class _Overrun(Exception):  # noqa: N818 - an event within this file
    """A block went on past the soft time-out and its grace."""


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
        self._connection = handles.connection
        self._connection.setblocking(False)
        self._process_fd = handles.process_fd
        self._zygote = handles.zygote
        self._limits = limits
        self._kernel_view = KernelView(handles.process_fd)
        self._cpu_deadline = float("inf")
        self._turn = 0
        self._poller = select.poll()
        self._poller.register(self._connection, _NEWS)
        self._is_ready = False
        self._is_stopped = False

    def run(self, code: str, *, slack: float = 1.0) -> Execution:
        """Run a block and judge how it ended; time limits are multiplied by ``slack``.

        Raises:
            ProcessDied: It ended before its reply, or what it sent was no reply.
            DiedAtBirth: It ended before the block was sent.
            SandboxError: Its walls do not stand; nothing ran.
        """
        self._await_ready()
        self._go_on()
        self._turn += 1
        wall_seconds = self._limits.wall_seconds * slack
        cpu_seconds = self._limits.cpu_seconds * slack
        started, cpu_started = time.monotonic(), self._kernel_view.cpu_seconds()
        deadline = started + wall_seconds + _GRACE_SECONDS
        self._cpu_deadline = cpu_started + cpu_seconds + _GRACE_SECONDS
        try:
            self._send(encode_block(self._turn, code, wall_seconds, cpu_seconds), deadline)
            reply, pixels = self._receive_reply(deadline)
        except _Overrun:
            return self._killed_for_time(started, cpu_started)
        except (OSError, FrameError) as error:
            raise ProcessDied(str(error)) from error
        wall, cpu = time.monotonic() - started, self._kernel_view.cpu_seconds() - cpu_started
        self._pause()
        return Execution(
            outcome=reply.outcome,
            stdout=reply.stdout,
            stderr=reply.stderr,
            error=reply.error,
            images=_cut_pictures(reply.sizes, pixels),
            wall_seconds=wall,
            cpu_seconds=max(0.0, cpu),
        )

    def kill(self) -> None:
        """End the process at once, whatever another thread waits for; harmless when repeated."""
        self._signal(signal.SIGKILL)

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
            header, _ = self._receive_header(time.monotonic() + _START_SECONDS)
            message = decode_message(header, self._limits)
        except (OSError, FrameError, _Overrun) as error:
            raise DiedAtBirth(f"a session died while starting: {error}") from error
        if message[:1] != ["ready"]:
            raise SandboxError(f"a session's walls could not be built: {message[1:]}")
        self._is_ready = True

    def _killed_for_time(self, started: float, cpu_started: float) -> Execution:
        used = self._kernel_view.cpu_seconds() - cpu_started
        wall = time.monotonic() - started
        if wall > self._limits.wall_seconds:
            limit = f"ran longer than {self._limits.wall_seconds:g} s"
        else:
            limit = f"used more than {self._limits.cpu_seconds:g} s of processor time"
        return Execution(
            outcome=Outcome.TIMEOUT,
            error=f"TimeoutError: the block {limit} and was killed",
            wall_seconds=wall,
            cpu_seconds=used,
        )

    def _receive_reply(self, deadline: float) -> tuple[Reply, bytearray]:
        header, blob_bytes = self._receive_header(deadline)
        reply = decode_reply(header, blob_bytes, self._limits)
        if reply.turn != self._turn:
            raise FrameError(f"a reply to turn {reply.turn} in turn {self._turn}")
        return reply, self._exactly(blob_bytes, deadline)

    def _receive_header(self, deadline: float) -> tuple[bytearray, int]:
        prefix = self._exactly(LENGTHS.size, deadline)
        header_bytes, blob_bytes = decode_lengths(prefix, self._limits)
        return self._exactly(header_bytes, deadline), blob_bytes

    def _exactly(self, count: int, deadline: float) -> bytearray:
        buffer = bytearray(count)
        view = memoryview(buffer)
        while view:
            try:
                got = self._connection.recv_into(view)
            except BlockingIOError:
                self._wait(deadline, select.POLLIN)
                continue
            if got == 0:
                raise FrameError("the connection was closed")
            view = view[got:]
        return buffer

    def _send(self, frame: bytes, deadline: float) -> None:
        view = memoryview(frame)
        while view:
            try:
                view = view[self._connection.send(view) :]
            except BlockingIOError:
                self._wait(deadline, select.POLLOUT)

    def _wait(self, deadline: float, event: int) -> None:
        """Wait until the connection is ready; both clocks are looked at in between."""
        self._poller.modify(self._connection, event)
        while True:
            left = deadline - time.monotonic()
            cpu_left = self._cpu_deadline - self._kernel_view.cpu_seconds()
            if left <= 0 or cpu_left <= 0:
                raise _Overrun
            if self._poller.poll(1000 * min(left, _SLICE_SECONDS) + 1):
                return


def _cut_pictures(sizes: tuple[tuple[int, int], ...], pixels: bytearray) -> tuple[Image.Image, ...]:
    images: list[Image.Image] = []
    start = 0
    for width, height in sizes:
        end = start + width * height * 3
        images.append(Image.frombytes("RGB", (width, height), memoryview(pixels)[start:end]))
        start = end
    return tuple(images)
