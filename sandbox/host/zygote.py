"""The host's handle of a zygote: configuration, requests for sessions, detection of its death."""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import resource
import select
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgpack

from ..types import DEFAULT_LIBRARIES, Limits, SandboxError
from ..worker.framing import LENGTHS, MESSAGE_BYTES
from .interpreter import Interpreter, as_utf8
from .machine import describe_lacks, find_lacks
from .worker_process import Home, WorkerProcess

_START_SECONDS = 120.0
_ANSWER_SECONDS = 60.0
_DYING_LOOK_SECONDS = 0.005
_RETRY_SECONDS = (0.05, 0.2, 0.5)  # between attempts to fork where no process is left


@dataclass(frozen=True, slots=True)
class ZygotePlan:
    """Configuration of a zygote.

    Attributes:
        interpreter: Python interpreter; None where its container has its own.
        libraries: Modules imported before the first session.
        limits: Limits of every session.
        isolation: ``full``, ``confined``, ``auto`` (the strongest available) or ``none``; for
            benchmarks only, ``layers:`` and the last layer (`worker.layers`), reported as level
            ``none``.
    """

    interpreter: Interpreter | None
    libraries: tuple[str, ...]
    limits: Limits
    isolation: str


@dataclass(frozen=True, slots=True)
class SessionHandles:
    """Handles of a new session: the host's end of its socket, its process and its zygote."""

    connection: socket.socket
    process_fd: int
    zygote: Zygote


class ZygoteDied(Exception):  # noqa: N818 - an event, turned into SandboxError only if it persists
    """The zygote and all its sessions have ended."""


class _NoProcessLeft(Exception):  # noqa: N818 - an event, which may pass
    """The user has as many processes and threads as it may."""


class Zygote:
    """One running zygote.

    Args:
        plan: Configuration.
        home: Process or container in which it runs.

    Attributes:
        tier: Isolation level.
        isolation: Description of the isolation.
        folders: Installation folders of its Python and libraries, the longest name first.

    Raises:
        SandboxError: The zygote did not start; the message holds its own error.
    """

    def __init__(self, plan: ZygotePlan, home: Home) -> None:
        self._home = home
        self._control = home.control
        self._lock = threading.Lock()
        try:
            self._control.settimeout(_START_SECONDS)
            answer = self._configure(plan)
        except BaseException:
            self.close()
            raise
        self.tier: str = answer["tier"]
        self.isolation: str = answer["isolation"]
        self.folders: tuple[str, ...] = tuple(answer["folders"])

    @property
    def process_id(self) -> int:
        """Process id of the executed interpreter."""
        return self._home.process_id

    @property
    def is_alive(self) -> bool:
        """Whether the zygote still holds its end of the control socket; does not block."""
        with self._lock:
            if self._control.fileno() < 0:
                return False
            poller = select.poll()
            poller.register(self._control, select.POLLIN)
            return not poller.poll(0)

    def outlives(self, seconds: float) -> bool:
        """Whether the zygote stays alive for ``seconds`` after a session's death.

        If so, the session died on its own. When the zygote dies its sessions follow; one that is
        just being forked still holds a copy of the control socket, so that the zygote appears
        alive for some milliseconds.
        """
        deadline = time.monotonic() + seconds
        while self.is_alive:
            if time.monotonic() > deadline:
                return True
            time.sleep(_DYING_LOOK_SECONDS)
        return False

    def open_session(
        self, seed: int, sizes: Sequence[tuple[int, int]], descriptors: Sequence[int]
    ) -> SessionHandles:
        """Fork a session with the input images in ``descriptors``.

        Raises:
            ZygoteDied: The zygote has ended.
            SandboxError: The zygote is alive but cannot fork.
        """
        plan = _plan(seed, sizes)
        for seconds in _RETRY_SECONDS:
            with contextlib.suppress(_NoProcessLeft):
                return self._open_session(plan, descriptors)
            time.sleep(seconds)  # other sessions may end
        try:
            return self._open_session(plan, descriptors)
        except _NoProcessLeft as error:
            raise SandboxError(_why_no_process(str(error))) from error

    def signal_session(self, process_fd: int, number: int) -> None:
        """Ask the zygote to signal a session of another user; asynchronous, in order.

        Raises:
            ZygoteDied: The zygote and the session have ended.
        """
        with self._lock:
            self._send({"signal": number}, [process_fd])

    def close(self) -> None:
        """End the zygote and its sessions; returns when the processes have ended."""
        with self._lock:
            self._control.close()
        self._home.end()

    def _open_session(self, plan: bytes, descriptors: Sequence[int]) -> SessionHandles:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                # To the session alone: the zygote's memory is passed on to all later sessions.
                ours.sendall(plan)
                answer, handles = self._ask({}, [theirs.fileno(), *descriptors])
            if answer.get("errno") == errno.EAGAIN:
                raise _NoProcessLeft(answer["error"])
            if "error" in answer or len(handles) != 1:
                raise SandboxError(f"no session: {answer.get('error', 'no process handle')}")
        except BaseException:
            ours.close()
            raise
        return SessionHandles(ours, handles[0], self)

    def _configure(self, plan: ZygotePlan) -> dict[str, Any]:
        config: dict[str, Any] = {
            "libraries": plan.libraries,
            "optional": DEFAULT_LIBRARIES,
            "limits": asdict(plan.limits),
            "isolation": plan.isolation,
        }
        if plan.interpreter is not None:
            config |= {
                "paths": plan.interpreter.paths,
                "base_prefix": plan.interpreter.base_prefix,
                "msgpack": as_utf8(str(Path(inspect.getfile(msgpack)).parent)),
            }
        try:
            self._control.send(json.dumps(config).encode())
            answer = json.loads(self._control.recv(MESSAGE_BYTES) or b"{}")
        except OSError as error:
            words = self._home.words()
            raise SandboxError(f"the zygote did not start: {error}; {words}") from error
        if "tier" not in answer:
            raise SandboxError(_why_not_started(answer.get("error") or self._home.words()))
        self._control.settimeout(_ANSWER_SECONDS)
        return answer

    def _ask(self, request: object, descriptors: Sequence[int]) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            self._send(request, descriptors)
            try:
                data, handles, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 1)
            except OSError as error:
                self._control.close()
                raise ZygoteDied(f"the zygote does not reply: {error}") from error
            except BaseException:  # a late reply must never be taken for that of the next request
                self._control.close()
                raise
        if not data:
            raise ZygoteDied("the zygote closed its socket")
        return json.loads(data), handles

    def _send(self, request: object, descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))
        except OSError as error:
            self._control.close()
            raise ZygoteDied(f"the zygote cannot be reached: {error}") from error
        except BaseException:  # the request may have arrived: its reply must match no other
            self._control.close()
            raise


def _plan(seed: int, sizes: Sequence[tuple[int, int]]) -> bytes:
    """Frame what a session has to know before its first block; a seed may be of any size."""
    header: Any = msgpack.packb([str(seed), sizes])
    return LENGTHS.pack(len(header), 0) + header


def _why_no_process(words: str) -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    most = "no limit" if soft == resource.RLIM_INFINITY else str(soft)
    return (
        f"no session: {words}. Trainer, sessions and their threads reach the number of processes "
        f"that this user (ulimit -u: {most}) or its cgroup (pids.max) may have; close sessions, "
        "lower Limits.threads, or raise the limit"
    )


def _why_not_started(words: str) -> str:
    """Return the error message, with what the machine lacks where isolation is unavailable."""
    if "no user namespaces" not in words:
        return f"the zygote did not start: {words}"
    return f"no isolation is available here ({words}).\n{describe_lacks(find_lacks())}"


def start_beside(plan: ZygotePlan) -> Zygote:
    """Start a zygote as a process of its own on this machine.

    Raises:
        SandboxError: It did not start.
    """
    if plan.interpreter is None:
        raise SandboxError("a worker beside the trainer needs an interpreter to run under")
    return Zygote(plan, WorkerProcess(plan.interpreter.executable))
