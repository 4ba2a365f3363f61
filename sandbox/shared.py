"""One sandbox per process for all environments with the same backend and limits.

The sandbox is opened when code first has to run, reference-counted, and closed with the last
environment that uses it. `SharedSandbox.require` opens it once per process before that, so that a
backend which this machine lacks is reported before any episode starts. A forked process
(`AsyncVectorEnv`) opens its own sandbox and leaves its parent's alone.
"""

from __future__ import annotations

import atexit
import difflib
import logging
import os
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from PIL import Image

from .opening import BACKENDS, open_sandbox
from .types import (
    Limits,
    Sandbox,
    SandboxError,
    SandboxUnavailableError,
    SeparableSandbox,
    Session,
    SessionState,
)

_log = logging.getLogger(__name__)

_Key = tuple[str, Limits]

_lock = threading.Lock()
_opened: dict[_Key, Sandbox] = {}
_users: dict[_Key, int] = {}
_usable: set[_Key] = set()
"""Keys that were opened once in this process and need no further check."""


class SharedSandbox:
    """A `Sandbox` that refers to the process-wide one with this backend and these limits.

    Args:
        backend: Name of the backend, as for `open_sandbox`.
        limits: Limits of every session; None for the defaults.

    Raises:
        ValueError: The backend is unknown.
    """

    def __init__(self, backend: str = "local", limits: Limits | None = None) -> None:
        if backend not in BACKENDS:
            near = difflib.get_close_matches(backend, BACKENDS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"unknown backend {backend!r}{hint}: one of {', '.join(BACKENDS)}")
        self._key: _Key = (backend, limits or Limits())
        self._process_id = 0

    def require(self) -> None:
        """Open the sandbox unless this process opened it before; later calls cost nothing.

        A transient failure (the worker did not start this time) is left to the session that
        needs the sandbox: it retries, and only that session is lost if it fails again.

        Raises:
            SandboxUnavailableError: This machine cannot run the backend; the message says why.
            ValueError: The backend does not support these limits.
        """
        if self._key in _usable:
            return
        try:
            self._sandbox()
        except SandboxUnavailableError:
            raise
        except SandboxError as error:
            _log.warning("the %s sandbox did not open, will retry: %s", self._key[0], error)

    @property
    def tier(self) -> str:
        """Isolation level and its description; opens the sandbox."""
        return self._sandbox().tier

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        """Open a session; the first one opens the sandbox.

        Raises:
            SandboxError: The sandbox or the session cannot be opened.
        """
        return self._sandbox().session(images, seed=seed)

    def restore(self, state: SessionState, images: Sequence[Image.Image] = ()) -> Session:
        """Open a session at ``state``; the first one opens the sandbox.

        Raises:
            SandboxError: The sandbox or the session cannot be opened.
        """
        return self._sandbox().restore(state, images)

    def another(self) -> Sandbox:
        """Open a sandbox of the same kind with a worker of its own, which nobody shares.

        Raises:
            SandboxError: The worker does not start.
        """
        sandbox = self._sandbox()
        if isinstance(sandbox, SeparableSandbox):
            return sandbox.another()
        return open_sandbox(self._key[0], limits=self._key[1])

    def close(self) -> None:
        """Release the sandbox; the last user closes it. A later call opens it again."""
        with _lock:
            if self._process_id != os.getpid():
                return
            self._process_id = 0
            _users[self._key] -= 1
            last = _opened.pop(self._key) if _users[self._key] == 0 else None
        if last is not None:
            last.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _sandbox(self) -> Sandbox:
        with _lock:
            if self._key not in _opened:
                _opened[self._key] = open_sandbox(self._key[0], limits=self._key[1])
                _users[self._key] = 0
                _usable.add(self._key)
            if self._process_id != os.getpid():
                self._process_id = os.getpid()
                _users[self._key] += 1
            return _opened[self._key]


def _forget() -> None:
    """Forget, in a forked child, the sandboxes of the parent and the lock it may have held."""
    global _lock  # another thread of the parent may hold it
    _lock = threading.Lock()
    _opened.clear()
    _users.clear()


def _close_all() -> None:
    with _lock:
        sandboxes = list(_opened.values())
        _opened.clear()
        _users.clear()
    for sandbox in sandboxes:
        sandbox.close()


os.register_at_fork(after_in_child=_forget)
atexit.register(_close_all)
