"""Where a zygote runs, and the default: a process executed beside the trainer."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import IO, Protocol

from ..types import SandboxError

FLAGS = ("-s", "-S", "-B", "-X", "utf8")  # a machine may lack the locale C.UTF-8
"""Interpreter flags, as isolated as ``-I``, which would also ignore PYTHONHASHSEED."""

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # the private folder of each session
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
"""The worker's whole environment."""

_SCRIPT = Path(__file__).parents[1] / "worker" / "start.py"


class Home(Protocol):
    """Where a zygote runs.

    Attributes:
        control: The host's end of the control socket.
        process_id: Process id of its outermost process on this machine.
    """

    control: socket.socket
    process_id: int

    def words(self) -> str:
        """Return the end of its standard error."""
        ...

    def end(self) -> None:
        """Wait for it to end after its control socket closed; end it if it does not."""
        ...


class Log:
    """A memory file for the zygote's standard error before its first session."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("zygote-log", os.MFD_CLOEXEC)

    def words(self) -> str:
        """Return the end of the log."""
        size = os.lseek(self.descriptor, 0, os.SEEK_END)
        data = os.pread(self.descriptor, 2000, max(0, size - 2000))
        return data.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Close it; a second call does nothing."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1


class WorkerProcess:
    """The worker as a separate process, started from a thread that lives as long as it does.

    The zygote asks the kernel to kill it when the thread that started it ends (PDEATHSIG counts
    threads); the end of a pool's short-lived thread would kill it.

    Args:
        executable: Path of the interpreter.

    Raises:
        SandboxError: The interpreter cannot be executed.
    """

    def __init__(self, executable: str) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = Log()
        self.process_id = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(executable, theirs), daemon=True)
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self.control.close()
            self._log.close()
            raise SandboxError(f"cannot execute {executable!r}: {self._error}")

    def words(self) -> str:
        """Return the end of its standard error."""
        return self._log.words()

    def end(self) -> None:
        """Wait for the process to end after its socket closed; kill it if it does not."""
        self._thread.join(timeout=2.0)
        if self._thread.is_alive() and self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._thread.join()
        self._log.close()

    def _run(self, executable: str, control: socket.socket) -> None:
        words: IO[bytes] = os.fdopen(os.dup(self._log.descriptor), "wb")
        try:
            with control, words:
                self._process = subprocess.Popen(
                    [executable, *FLAGS, str(_SCRIPT)],
                    env=ENVIRONMENT | _library_path(),
                    cwd="/",
                    stdin=control.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=words,
                    start_new_session=True,  # Ctrl-C goes to the trainer, which closes us
                )
                self.process_id = self._process.pid
        except OSError as error:
            self._error = error
            return
        finally:
            self._started.set()
        self._process.wait()


def _library_path() -> dict[str, str]:
    """Return the one variable of the trainer that some interpreters need to start."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
