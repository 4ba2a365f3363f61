"""Identity of a process, and trial of operations in a child process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from . import kernel

NOBODY = 65534


def refusal_of(attempt: Callable[[], None]) -> str:
    """Try an irrevocable operation in a child; return why it failed, empty on success."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
            os._exit(0)
        except Exception as error:  # noqa: BLE001 - reported to the parent
            os.write(writing, str(error).encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        words = pipe.read()
    _, status = os.waitpid(pid, 0)
    return words or (f"the attempt ended with status {status}" if status else "")


def require_process_handles() -> None:
    """Check that a host can hold on to a session's process.

    Raises:
        OSError: The kernel has no handles of processes.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        raise OSError(
            f"no handles of processes (pidfd_open): {error}; Linux 5.3 or later has them"
        ) from error


def is_root() -> bool:
    """Whether this is root and can drop root (not possible in a rootless container)."""
    return os.geteuid() == 0 and not refusal_of(become_nobody)


def read_as_nobody(paths: Iterable[str]) -> None:
    """Drop root and access files, as the code will."""
    become_nobody()
    for path in paths:
        os.stat(path)


def become_nobody() -> None:
    """Drop root irrevocably."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    kernel.set_dumpable(True)
