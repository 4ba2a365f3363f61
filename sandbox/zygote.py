"""The host's hold on a zygote: executes it, asks it for sessions, notices its death."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import msgpack

from .interpreter import Interpreter
from .types import DEFAULT_LIBRARIES, Limits, SandboxError
from .worker.framing import MESSAGE_BYTES

_START_SECONDS = 120.0
_ANSWER_SECONDS = 60.0
_SCRIPT = Path(__file__).with_name("worker") / "start.py"
_FLAGS = ("-s", "-S", "-B")  # as isolated as -I, which would ignore PYTHONHASHSEED as well
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # the private one of each session
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "MPLBACKEND": "Agg",
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_OPENCL_RUNTIME": "disabled",
}


@dataclass(frozen=True, slots=True)
class ZygotePlan:
    """What a zygote is told at its start.

    Attributes:
        interpreter: Which Python it runs under.
        libraries: What it imports before the first session.
        limits: Limits of every session.
        walls: ``full``, ``confined``, ``auto`` (the strongest there is) or ``none``.
    """

    interpreter: Interpreter
    libraries: tuple[str, ...]
    limits: Limits
    walls: str


@dataclass(frozen=True, slots=True)
class SessionHandles:
    """A new session: the host's end of its socket, its process, and its folder if it made one."""

    connection: socket.socket
    process_fd: int
    folder: str


class ZygoteDied(Exception):  # noqa: N818 - an event, turned into SandboxError only if it persists
    """The zygote is gone, and every session with it."""


class Zygote:
    """One running zygote.

    Args:
        plan: What it is told.

    Raises:
        SandboxError: It did not start; the message holds its own words.
    """

    def __init__(self, plan: ZygotePlan) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._scratch = ""
        self._log = os.memfd_create("zygote-log", os.MFD_CLOEXEC)
        self._keeper = _Keeper(plan.interpreter.executable, theirs, self._log)
        try:
            self._control.settimeout(_START_SECONDS)
            answer = self._configure(plan)
        except BaseException:
            self.close()
            raise
        self.tier: str = answer["tier"]
        self.walls: str = answer["walls"]
        if self.tier != "full":
            self._scratch = tempfile.mkdtemp(prefix="codedance-")
            if os.geteuid() == 0:
                os.chmod(self._scratch, 0o1733)  # sessions that gave up root make theirs in it

    @property
    def process_id(self) -> int:
        """Process id of the executed interpreter."""
        return self._keeper.process_id

    @property
    def is_alive(self) -> bool:
        """Whether it still holds its end of the control socket (asked without waiting)."""
        with self._lock:
            if self._control.fileno() < 0:
                return False
            poller = select.poll()
            poller.register(self._control, select.POLLIN)
            return not poller.poll(0)

    def open_session(
        self, seed: int, sizes: Sequence[tuple[int, int]], descriptors: Sequence[int]
    ) -> SessionHandles:
        """Fork a session that sees the pictures in ``descriptors``.

        Raises:
            ZygoteDied: It is gone.
            SandboxError: It is alive but cannot fork.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = f"{self._scratch}/{next(self._numbers)}" if self._scratch else ""
        request = {"seed": seed, "pictures": sizes, "folder": folder}
        try:
            with theirs:
                answer, handles = self._ask(request, [theirs.fileno(), *descriptors])
            if "error" in answer or len(handles) != 1:
                raise SandboxError(f"no session: {answer.get('error', 'no process handle')}")
        except BaseException:
            ours.close()
            raise
        return SessionHandles(ours, handles[0], folder)

    def close(self) -> None:
        """End it and every session; returns when the processes are gone."""
        with self._lock:
            self._control.close()
        self._keeper.end()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._log)
        self._log = -1

    def _configure(self, plan: ZygotePlan) -> dict[str, Any]:
        config = {
            "paths": plan.interpreter.paths,
            "base_prefix": plan.interpreter.base_prefix,
            "libraries": plan.libraries,
            "optional": DEFAULT_LIBRARIES,
            "limits": asdict(plan.limits),
            "walls": plan.walls,
            "msgpack": str(Path(inspect.getfile(msgpack)).parent),
        }
        try:
            self._control.send(json.dumps(config).encode())
            answer = json.loads(self._control.recv(MESSAGE_BYTES) or b"{}")
        except OSError as error:
            raise SandboxError(f"the zygote did not start: {error}; {self._words()}") from error
        if "tier" not in answer:
            raise SandboxError(f"the zygote did not start: {answer.get('error') or self._words()}")
        self._control.settimeout(_ANSWER_SECONDS)
        return answer

    def _ask(self, request: object, descriptors: Sequence[int]) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))
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

    def _words(self) -> str:
        """Give the last of what it wrote to standard error."""
        size = os.lseek(self._log, 0, os.SEEK_END)
        return os.pread(self._log, 2000, max(0, size - 2000)).decode("utf-8", "replace").strip()


def _library_path() -> dict[str, str]:
    """Give the one variable of the trainer's without which some interpreters do not start."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


class _Keeper:
    """Starts the process from a thread that lives as long as it does.

    The zygote asks the kernel to kill it when the thread that started it ends (PDEATHSIG counts
    threads); a pool's short-lived thread would take it along.
    """

    def __init__(self, executable: str, control: socket.socket, log: int) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._started = threading.Event()
        arguments = (executable, control, log)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()
        self._started.wait()
        if self._error is not None or self._process is None:
            raise SandboxError(f"cannot execute {executable!r}: {self._error}")
        self.process_id = self._process.pid

    def _run(self, executable: str, control: socket.socket, log: int) -> None:
        words: IO[bytes] = os.fdopen(os.dup(log), "wb")
        try:
            with control, words:
                self._process = subprocess.Popen(
                    [executable, *_FLAGS, str(_SCRIPT)],
                    env=_ENVIRONMENT | _library_path(),
                    cwd="/",
                    stdin=control.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=words,
                    start_new_session=True,  # Ctrl-C is for the trainer, which then closes us
                )
        except OSError as error:
            self._error = error
            return
        finally:
            self._started.set()
        self._process.wait()

    def end(self) -> None:
        """Wait for the process to follow its closed socket, killing it if it does not."""
        self._thread.join(timeout=2.0)
        if self._thread.is_alive() and self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._thread.join()
