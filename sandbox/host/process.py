"""The host's view of a session's process: send a block, wait within its limits, kill it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from PIL import Image

from ..types import Execution, Limits, Outcome
from ..worker.framing import LENGTHS
from .connection import Connection, Watch
from .frames import FrameError, Reply, decode_lengths, decode_message, decode_reply, encode_block
from .kernel_view import KernelView
from .memory.cgroup import SessionGroups
from .memory.watch import MemoryWatch
from .shown_pictures import as_picture, picture_memory
from .turn_clock import TurnClock
from .turn_gate import Place
from .turn_watch import OverMemory, Overrun, StartWatch, TurnWatch
from .zygote import SessionHandles, ZygoteDied


class ProcessDied(Exception):  # noqa: N818 - an event, judged by the caller
    """The process ended, or violated the protocol and is treated as ended."""


class DiedAtBirth(ProcessDied):
    """The process ended before any model code ran, so that no block caused it."""


class SessionProcess:
    """A running session process; not thread-safe, its session holds a lock.

    Args:
        handles: Handles of the process, from the zygote.
        limits: Limits on time and on the size of replies.
        is_zygote_alive: Whether the zygote that forked it is still alive; if it is, the block
            itself caused the death of the process.
        groups: Memory cgroups of the sandbox's sessions; None for none.
    """

    def __init__(
        self,
        handles: SessionHandles,
        limits: Limits,
        is_zygote_alive: Callable[[], bool],
        *,
        groups: SessionGroups | None = None,
    ) -> None:
        self.is_zygote_alive = is_zygote_alive
        self._connection = Connection(handles.connection)
        self._process_fd = handles.process_fd
        self._zygote = handles.zygote
        self._limits = limits
        self._kernel_view = KernelView(handles.process_fd)
        self._memory = MemoryWatch(self._kernel_view.process_id, limits, groups)
        self._turn = 0
        self._is_ready = False
        self._is_stopped = False
        self._is_killed = False

    def run(self, code: str, place: Place, *, slack: float = 1.0) -> Execution:
        """Run a block and return its result; time limits are multiplied by ``slack``.

        Args:
            code: Source of the block.
            place: Its place at the gate; others get it while the block sleeps, and after a slice.
            slack: Factor of the time limits, for a replay.

        Raises:
            ProcessDied: The process ended before its reply, or sent an invalid reply.
            DiedAtBirth: The process ended before the block was sent.
            SandboxError: No core was available to the process.
        """
        self._await_ready()
        if self._is_killed or not self._connection.is_quiet():
            kind = ProcessDied if self._turn else DiedAtBirth
            raise kind("the process ended, or replied to a block that it had not received")
        place.hold()
        self.resume()
        self._turn += 1
        clock = TurnClock(self._kernel_view, self._limits, slack=slack)
        self._memory.begin()
        watch = TurnWatch(
            self, clock, place, memory=self._memory, is_measured=self._kernel_view.is_known
        )
        try:
            frame = encode_block(self._turn, code, clock.wall_limit, clock.cpu_limit)
            self._connection.send(frame, watch)
            reply = self._receive_reply(watch)
            is_late = reply.outcome is Outcome.OK and clock.is_over
            images = self._receive_pictures(reply.sizes, watch)
        except Overrun:
            error = f"TimeoutError: the block {clock.verdict()} and was killed"
            return self._killed(Outcome.TIMEOUT, error, clock)
        except OverMemory:
            return self._killed(Outcome.MEMORY, self._memory.error, clock)
        except (OSError, FrameError) as error:
            if self._memory.was_killed():
                return self._killed(Outcome.MEMORY, self._memory.error, clock)
            raise ProcessDied(str(error)) from error
        wall, cpu = clock.wall_seconds, clock.cpu_seconds
        self.pause()
        outcome, error = reply.outcome, reply.error
        if is_late:
            outcome, error = Outcome.TIMEOUT, f"TimeoutError: the block {clock.verdict()}"
        elif outcome is Outcome.OK and self._memory.is_over_after(cpu):
            outcome, error = Outcome.MEMORY, self._memory.error
        return Execution(
            outcome=outcome,
            stdout=reply.stdout,
            stderr=reply.stderr,
            error=error,
            images=images,
            wall_seconds=wall,
            cpu_seconds=cpu,
            has_handled_error=reply.has_handled_error and not is_late,
        )

    @property
    def folders(self) -> tuple[str, ...]:
        """Installation folders of its Python: left out of digests, as they differ by machine."""
        return self._zygote.folders

    def kill(self) -> None:
        """Kill the process at once, even while another thread waits for it; idempotent."""
        self._is_killed = True  # it may still seem alive when the next block is due
        self._signal(signal.SIGKILL)

    def interrupt(self) -> None:
        """Signal the block that its time is up; it can delay the interrupt only for a moment."""
        self._signal(signal.SIGALRM)

    def pause(self) -> None:
        """Stop the process while others have its place, and between turns.

        Its threads, timers and handlers do not run meanwhile.
        """
        self._signal(signal.SIGSTOP)
        self._is_stopped = True

    def resume(self) -> None:
        """Let a stopped process continue."""
        if self._is_stopped:
            self._signal(signal.SIGCONT)
            self._is_stopped = False

    def close(self) -> None:
        """Kill the process and release its handles; a second call does nothing."""
        if self._process_fd < 0:
            return
        self.kill()
        process_fd, self._process_fd = self._process_fd, -1
        os.close(process_fd)
        self._kernel_view.close()
        self._memory.close()
        self._connection.close()

    def _killed(self, outcome: Outcome, error: str, clock: TurnClock) -> Execution:
        """Kill the process, and return the result of the block that exceeded a limit."""
        self.kill()
        return Execution(
            outcome=outcome,
            error=error,
            wall_seconds=clock.wall_seconds,
            cpu_seconds=clock.cpu_seconds,
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._process_fd >= 0:
            try:
                signal.pidfd_send_signal(self._process_fd, number)
            except ProcessLookupError:
                return
            except PermissionError:  # a container has another user; its zygote may signal
                with contextlib.suppress(ZygoteDied):
                    self._zygote.signal_session(self._process_fd, number)

    def _await_ready(self) -> None:
        if self._is_ready:
            return
        try:
            header, _ = self._receive_header(StartWatch())
            message = decode_message(header, self._limits)
        except (OSError, FrameError, Overrun) as error:
            raise DiedAtBirth(f"a session died while starting: {error}") from error
        if message[:1] != ["ready"]:
            raise DiedAtBirth(f"the isolation of a session could not be set up: {message[1:]}")
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
