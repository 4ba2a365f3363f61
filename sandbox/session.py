"""A session that rolls back failed blocks: a fresh process replays the successful ones."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from PIL import Image

from .host.process import DiedAtBirth, ProcessDied, SessionProcess
from .host.turn_gate import Place, TurnGate
from .host.zygote import ZygoteDied
from .types import (
    Execution,
    Outcome,
    SandboxError,
    SessionLostError,
    SessionState,
    output_digest,
)

_ATTEMPTS = 3  # attempts at a block whose process or zygote died for no fault of the block
_REPLAY_SLACK = 2.0  # the machine may be busier during a replay than in the first run
_CODE_CHARACTERS = 1_000_000
_MOST_PIXELS_HELD = 1 << 23  # of images of which only the digest is needed later
_DIED = "SessionKilled: the interpreter ended while it ran this block"
_DIED_AGAIN = (
    f"zygote or session died {_ATTEMPTS} times in a row; does the machine run out of memory?"
)
_LOST = "SessionLost: the earlier blocks gave other results when run again; all variables are gone"


@dataclass(slots=True)
class _Block:
    """A successful block; its digest is computed on first use."""

    code: str
    execution: Execution | None
    folders: tuple[str, ...] = ()
    known_digest: str = ""

    @property
    def pixels(self) -> int:
        """Pixels of the images that are kept for the digest."""
        return 0 if self.execution is None else _pixels(self.execution)

    @property
    def digest(self) -> str:
        if self.execution is not None:
            self.known_digest = output_digest(self.execution, self.folders)
            self.execution = None
        return self.known_digest


@dataclass(frozen=True, slots=True)
class SessionHome:
    """Services of the sandbox that a session uses.

    Attributes:
        open_process: Starts a fresh process with the session's images and seed.
        gate: Limit on the turns that run at once.
        forget: Callback, called once when the session closes.
        most_pixels: Maximum number of pixels of all images that a session shows.
    """

    open_process: Callable[[], SessionProcess]
    gate: TurnGate
    forget: Callable[[ReplayingSession], None]
    most_pixels: int


class _StateLost(Exception):  # noqa: N818 - an event within this file
    """A replay whose output differs from that of the first run."""


def _pixels(execution: Execution) -> int:
    images = execution.images
    return sum(image.width * image.height for image in images) if images else 0


class ReplayingSession:
    """A `Session` on any backend that can open a process.

    Args:
        home: Services of the sandbox.
        state: Initial state.
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
        self._pixels_left = home.most_pixels
        self._pixels_held = 0  # of blocks whose digest may still be due
        self._is_at_state = False  # whether the process has run all of the blocks
        self._lock = threading.Lock()
        self._is_closed = False
        self._owner = os.getpid()

    def start(self) -> None:
        """Start the first process now, so that a sandbox which cannot start one fails at once.

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
            SessionLostError: The worker died each time that it ran the block.
            SandboxError: The worker could not be replaced, or the session is closed.
        """
        with self._lock:
            if self._is_closed:
                raise SandboxError("this session is closed")
            if self._owner != os.getpid():
                raise SandboxError("a forked process cannot use its parent's session; open another")
            if len(code) > _CODE_CHARACTERS:
                error = f"SyntaxError: the block is longer than {_CODE_CHARACTERS} characters"
                return Execution(Outcome.ERROR, error=error)
            last: Exception | None = None
            for _ in range(_ATTEMPTS):
                try:
                    with self._home.gate.place() as place:
                        return self._run(code, place)
                except (ZygoteDied, DiedAtBirth) as death:  # not the block's fault: retry
                    last = death
                    self._drop_process()
                except BaseException:  # an interrupt leaves a reply in flight: never read it
                    self._drop_process()
                    raise
            kind = SessionLostError if isinstance(last, ZygoteDied) else SandboxError
            raise kind(f"{_DIED_AGAIN} The last time: {last}")

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
        """Kill the process at once, without waiting for the session's lock."""
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
            self._append(_Block(code, execution, process.folders))
        else:
            self._drop_process()
        return self._within_pixels(execution)

    def _append(self, block: _Block) -> None:
        """Append a successful block; hash the outputs once they hold many pixels."""
        self._blocks.append(block)
        self._pixels_held += block.pixels
        if self._pixels_held > _MOST_PIXELS_HELD:
            self._pixels_held = 0
            for one in self._blocks:
                _ = one.digest

    def _within_pixels(self, execution: Execution) -> Execution:
        """Leave out the images that exceed the session's pixels, and say so in standard error."""
        if not execution.images:
            return execution
        kept: list[Image.Image] = []
        for image in execution.images:
            if image.width * image.height <= self._pixels_left:
                self._pixels_left -= image.width * image.height
                kept.append(image)
        count = len(execution.images) - len(kept)
        if not count:
            return execution
        what = "picture was" if count == 1 else "pictures were"
        most = self._home.most_pixels
        note = f"[{count} more {what} left out: at most {most} pixels in all blocks together]\n"
        return replace(execution, images=tuple(kept), stderr=execution.stderr + note)

    def _live_process(self, place: Place) -> SessionProcess:
        """Return the process, or a fresh one after a replay to the same state."""
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
