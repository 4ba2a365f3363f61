"""A session that forgets failed blocks: a fresh process replays the successful ones when needed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from .host.process import DiedAtBirth, ProcessDied, SessionProcess
from .host.turn_gate import Place, TurnGate
from .host.zygote import ZygoteDied
from .types import Execution, Outcome, SandboxError, SessionState, output_digest

_ATTEMPTS = 3  # how often a block starts again because what it ran in died under it
_REPLAY_SLACK = 2.0  # a replay meets other loads than the first run did
_CODE_CHARACTERS = 1_000_000
_DIED = "SessionKilled: the interpreter ended while it ran this block"
_DIED_AGAIN = (
    f"zygote or session died {_ATTEMPTS} times in a row; does the machine run out of memory?"
)
_LOST = "SessionLost: the earlier blocks gave other results when run again; all variables are gone"


@dataclass(slots=True)
class _Block:
    """A successful block; its digest is worked out when first asked for."""

    code: str
    execution: Execution | None
    folders: tuple[str, ...] = ()
    known_digest: str = ""

    @property
    def digest(self) -> str:
        if self.execution is not None:
            self.known_digest = output_digest(self.execution, self.folders)
            self.execution = None
        return self.known_digest


@dataclass(frozen=True, slots=True)
class SessionHome:
    """What a session needs of the sandbox that opened it.

    Attributes:
        open_process: Starts a fresh process with the session's pictures and seed.
        gate: Bounds the turns that run at once.
        forget: Called once when the session closes.
    """

    open_process: Callable[[], SessionProcess]
    gate: TurnGate
    forget: Callable[[ReplayingSession], None]


class _StateLost(Exception):  # noqa: N818 - an event within this file
    """A replay gave something else than the first run."""


class ReplayingSession:
    """A `Session` on any backend that can open a process.

    Args:
        home: The sandbox, as far as the session needs it.
        state: Where to begin.
    """

    def __init__(self, home: SessionHome, state: SessionState) -> None:
        self._home = home
        self._seed = state.seed
        self._image_digests = state.image_digests
        self._blocks = [
            _Block(code, None, known_digest=digest)
            for code, digest in zip(state.blocks, state.output_digests, strict=True)
        ]
        self._process: SessionProcess | None = None
        self._is_at_state = False  # whether the process has run all of the blocks
        self._lock = threading.Lock()
        self._is_closed = False
        self._owner = os.getpid()

    def start(self) -> None:
        """Start the first process now, so that a sandbox which cannot says so at once.

        Raises:
            SandboxError: The worker died and could not be replaced.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(ZygoteDied):
                    self._process = self._home.open_process()
                    self._is_at_state = not self._blocks
                    return
            raise SandboxError(_DIED_AGAIN)

    def run(self, code: str) -> Execution:
        """Run a block; a block that fails leaves the state of the last successful one.

        Raises:
            SandboxError: The worker died and could not be replaced, or the session is closed.
        """
        with self._lock:
            if self._is_closed:
                raise SandboxError("this session is closed")
            if self._owner != os.getpid():
                raise SandboxError("a forked process cannot use its parent's session; open another")
            if len(code) > _CODE_CHARACTERS:
                error = f"SyntaxError: the block is longer than {_CODE_CHARACTERS} characters"
                return Execution(Outcome.ERROR, error=error)
            why = ""
            for _ in range(_ATTEMPTS):
                try:
                    with self._home.gate.place() as place:
                        return self._run(code, place)
                except (ZygoteDied, DiedAtBirth) as death:  # no block's doing: try another process
                    why = str(death)
                    self._drop_process()
                except BaseException:  # an interrupt leaves a reply on its way: never read it
                    self._drop_process()
                    raise
            raise SandboxError(f"{_DIED_AGAIN} The last time: {why}")

    def snapshot(self) -> SessionState:
        """Return the state after the last successful block."""
        with self._lock:
            return SessionState(
                seed=self._seed,
                blocks=tuple(block.code for block in self._blocks),
                output_digests=tuple(block.digest for block in self._blocks),
                image_digests=self._image_digests,
            )

    def kill(self) -> None:
        """Kill the process under whatever runs in it, without waiting for the session's lock."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the session's process; a second call does nothing."""
        with self._lock:
            if self._is_closed or self._owner != os.getpid():
                return
            self._is_closed = True
            self._drop_process()
        self._home.forget(self)

    def _run(self, code: str, place: Place) -> Execution:
        try:
            process = self._live_process(place)
        except _StateLost:
            self._drop_process()
            self._blocks.clear()
            return Execution(Outcome.KILLED, error=_LOST)
        execution = self._attempt(process, code, place)
        if execution.is_ok:
            self._blocks.append(_Block(code, execution, process.folders))
        else:
            self._drop_process()
        return execution

    def _live_process(self, place: Place) -> SessionProcess:
        """Return the process, or a fresh one brought to the same state."""
        if self._process is None:
            self._process = self._home.open_process()
            self._is_at_state = not self._blocks
        if not self._is_at_state:
            for block in self._blocks:
                again = self._attempt(self._process, block.code, place, slack=_REPLAY_SLACK)
                if output_digest(again, self._process.folders) != block.digest:
                    raise _StateLost
            self._is_at_state = True
        return self._process

    def _attempt(
        self, process: SessionProcess, code: str, place: Place, *, slack: float = 1.0
    ) -> Execution:
        started = time.monotonic()
        try:
            return process.run(code, place, slack=slack)
        except ProcessDied as death:
            if not process.is_zygote_alive():
                raise ZygoteDied(str(death)) from death
            if isinstance(death, DiedAtBirth):
                raise
            return Execution(Outcome.KILLED, error=_DIED, wall_seconds=time.monotonic() - started)

    def _drop_process(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
