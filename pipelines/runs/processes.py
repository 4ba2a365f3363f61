"""Child services such as servers and workers: start, restart, end with their children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

TERM_SECONDS = 8.0
KILL_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 30.0


_GUARD = """
import os, signal, sys
group = int(sys.argv[1])
def begun():
    try:
        with open(f"/proc/{group}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19]
    except OSError:
        return None
before = begun()
sys.stdin.buffer.read()
if begun() in (before, None):
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Guard:
    """A helper process that kills a process group when this process has ended, for any reason.

    It waits for the end of a pipe that only this process holds open: the kernel closes it with the
    process. What the group started in a session of its own is not killed.

    Args:
        group: Process id of the group's leader, which has to be a child of this process.
    """

    def __init__(self, group: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End the guard; the group continues."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


@dataclass(slots=True)
class Service:
    """A program that runs as long as this process, in its own session, with its output in a file.

    If this process is killed, the group of the service is killed, too.

    Attributes:
        name: Name in messages.
        command: Command line.
        log: File that the output is appended to.
        environment: Variables that are added to this process's environment.
        process: The running process; None before the start.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    process: subprocess.Popen[bytes] | None = None
    _pause_seconds: float = 1.0
    _started_at: float = 0.0
    _guard: Guard | None = None

    def start(self) -> None:
        """Start the service; the output of an earlier start stays in the file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        self._dismiss_guard()
        self._guard = Guard(self.process.pid)
        self._started_at = time.monotonic()

    @property
    def is_running(self) -> bool:
        """Whether the service was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def is_due(self) -> bool:
        """Whether the service has died and its pause before a restart is over."""
        has_died = self.process is not None and not self.is_running
        return has_died and time.monotonic() - self._started_at >= self._pause_seconds

    def revive(self, say: Callable[[str], None]) -> None:
        """Restart the service if it has died, with growing pauses if it keeps dying at once."""
        now = time.monotonic()
        if self.process is None or not self.is_due:
            return
        how = self.process.returncode
        if now - self._started_at > LONGEST_PAUSE_SECONDS:
            self._pause_seconds = 1.0
        self._pause_seconds = min(LONGEST_PAUSE_SECONDS, 2 * self._pause_seconds)
        say(f"{self.name} died ({_ending(how)}) and is being restarted; see {self.log}")
        self.start()

    def children(self) -> list[psutil.Process]:
        """Return the direct child processes of the service."""
        if self.process is None:
            return []
        try:
            children = psutil.Process(self.process.pid).children()
            return [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def hold(self) -> None:
        """Suspend the service until it is ended; its child processes continue."""
        if self.process is not None and self.is_running:
            self.process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        """End the service and its children: SIGTERM first, then SIGKILL for those that remain."""
        if self.process is None:
            return
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
        for number, patience in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
                os.killpg(self.process.pid, signal.SIGCONT)  # a suspended one handles it now
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=patience)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._dismiss_guard()

    def _dismiss_guard(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None


@contextlib.contextmanager
def interruptible() -> Generator[None]:
    """Let Ctrl-C and SIGTERM both raise KeyboardInterrupt while the context lasts."""
    numbers = (signal.SIGINT, signal.SIGTERM)  # shells ignore SIGINT for background jobs
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def running(*services: Service) -> Generator[None]:
    """Run services while the context lasts, `interruptible`."""
    with interruptible(), contextlib.ExitStack() as stack:
        for service in services:
            service.start()
            stack.callback(service.end)
        yield


def serving_command(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", name, *arguments]


def wait_for(
    address: str,
    service: Service,
    seconds: float = 300.0,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Wait until a service answers at an address; an exception of ``check`` ends the wait.

    Raises:
        ServiceError: The service died or did not answer in time; the message quotes its log.
    """
    import httpx

    end = time.monotonic() + seconds
    while time.monotonic() < end and service.is_running:
        check()
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(address, timeout=2.0).is_success:
                return
        time.sleep(0.3)
    words = service.log.read_text(errors="replace")[-2000:] if service.log.is_file() else ""
    verb = f"did not answer within {seconds:.0f} s" if service.is_running else "died"
    raise ServiceError(f"{service.name} {verb} ({address}); its log {service.log} ends:\n{words}")


class ServiceError(RuntimeError):
    """A server could not be started; the message says why."""


def is_free(port: int) -> bool:
    """Return whether a port of this machine is free."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_port() -> int:
    """Return a port of this machine that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
