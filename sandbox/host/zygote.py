"""The host's hold on a zygote: tells it what to be, asks it for sessions, notices its death."""

from __future__ import annotations

import inspect
import json
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
from ..worker.framing import MESSAGE_BYTES
from .interpreter import Interpreter, as_utf8
from .machine import describe_lacks, find_lacks
from .worker_process import Home, WorkerProcess

_START_SECONDS = 120.0
_ANSWER_SECONDS = 60.0
_DYING_LOOK_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class ZygotePlan:
    """What a zygote is told at its start.

    Attributes:
        interpreter: Which Python it runs under; None where its container has its own.
        libraries: What it imports before the first session.
        limits: Limits of every session.
        isolation: ``full``, ``confined``, ``auto`` (the strongest there is) or ``none``; for the
            benchmark alone ``layers:`` and the last layer (`worker.layers`), of the tier ``none``.
    """

    interpreter: Interpreter | None
    libraries: tuple[str, ...]
    limits: Limits
    isolation: str


@dataclass(frozen=True, slots=True)
class SessionHandles:
    """A new session: the host's end of its socket, its process, and the zygote that forked it."""

    connection: socket.socket
    process_fd: int
    zygote: Zygote


class ZygoteDied(Exception):  # noqa: N818 - an event, turned into SandboxError only if it persists
    """The zygote is gone, and every session with it."""


class Zygote:
    """One running zygote.

    Args:
        plan: What it is told.
        home: Where it runs.

    Attributes:
        folders: Where Python and its libraries lie for it, the longest name first.

    Raises:
        SandboxError: It did not start; the message holds its own words.
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
        """Whether it still holds its end of the control socket (asked without waiting)."""
        with self._lock:
            if self._control.fileno() < 0:
                return False
            poller = select.poll()
            poller.register(self._control, select.POLLIN)
            return not poller.poll(0)

    def outlives(self, seconds: float) -> bool:
        """Whether it lives on for a moment after a session's death, which then was its own.

        When the zygote dies its sessions follow; one that is just being born still holds a copy of
        the control socket, so that for some milliseconds the socket looks alive.
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
        """Fork a session that sees the pictures in ``descriptors``.

        Raises:
            ZygoteDied: It is gone.
            SandboxError: It is alive but cannot fork.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        request = {"seed": seed, "pictures": sizes}
        try:
            with theirs:
                answer, handles = self._ask(request, [theirs.fileno(), *descriptors])
            if "error" in answer or len(handles) != 1:
                raise SandboxError(f"no session: {answer.get('error', 'no process handle')}")
        except BaseException:
            ours.close()
            raise
        return SessionHandles(ours, handles[0], self)

    def signal_session(self, process_fd: int, number: int) -> None:
        """Have a session signalled for a host that may not, as it is another user; soon, in order.

        Raises:
            ZygoteDied: It is gone, and the session with it.
        """
        with self._lock:
            self._tell({"signal": number}, [process_fd])

    def close(self) -> None:
        """End it and every session; returns when the processes are gone."""
        with self._lock:
            self._control.close()
        self._home.end()

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
            self._tell(request, descriptors)
            try:
                data, handles, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 1)
            except OSError as error:
                self._control.close()
                raise ZygoteDied(f"the zygote does not answer: {error}") from error
            except BaseException:  # a late answer must never meet the next question
                self._control.close()
                raise
        if not data:
            raise ZygoteDied("the zygote closed its socket")
        return json.loads(data), handles

    def _tell(self, request: object, descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))
        except OSError as error:
            self._control.close()
            raise ZygoteDied(f"the zygote does not listen: {error}") from error
        except BaseException:  # it may have heard the question: its answer must meet no other
            self._control.close()
            raise


def _why_not_started(words: str) -> str:
    """Say what it said, and what the machine lacks where no walls could stand."""
    if "no user namespaces" not in words:
        return f"the zygote did not start: {words}"
    return f"no walls stand here ({words}).\n{describe_lacks(find_lacks())}"


def start_beside(plan: ZygotePlan) -> Zygote:
    """Start a zygote as a process of its own on this machine.

    Raises:
        SandboxError: It did not start.
    """
    if plan.interpreter is None:
        raise SandboxError("a worker beside the trainer needs an interpreter to run under")
    return Zygote(plan, WorkerProcess(plan.interpreter.executable))
