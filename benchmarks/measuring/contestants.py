"""Contestants that run model code: bare exec, our sandbox by isolation level, a new process."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from codedance.sandbox.types import Sandbox, Session
from PIL import Image

from .programs import EPISODES, PROGRAMS, SIDE, Program, explicit

READ_PICTURE = (
    "import sys\nfrom PIL import Image\n"
    f"input_image = Image.frombytes('RGB', ({SIDE}, {SIDE}), open(0, 'rb').read())\n"
)
WRITE_OUT = "\nsys.stdout.buffer.write(out.tobytes())"
_SIZES = {"crop": (1024, 1024), "small crop": (448, 448), "figure": (640, 480)}


class Runner(Protocol):
    """One interpreter that keeps its variables from turn to turn."""

    def run(self, program: Program) -> None:
        """Run a program and wait for its text and images."""
        ...

    def close(self) -> None:
        """Close the interpreter."""
        ...


class Stateful:
    """A contestant whose sessions live from turn to turn.

    Args:
        name: Name in the table.
        open_runner: Function that opens a session on the image.
        stride: See `Contestant`.
        has_sessions: Whether opening and closing a session can be measured.
        close: Function that closes what all its sessions share.
    """

    def __init__(
        self,
        name: str,
        open_runner: Callable[[], Runner],
        *,
        stride: int = 1,
        has_sessions: bool = True,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.stride = stride
        self.open_runner = open_runner
        self._has_sessions = has_sessions
        self._close = close
        self._warm: Runner | None = None
        self._left: list[Runner] = []

    def work(self, row: str) -> Callable[[], None] | None:
        """Return a function that does a row's work once; the next call closes what it opened."""
        while self._left:
            self._left.pop().close()
        if row in ("start", "cycle"):
            if not self._has_sessions:
                return None
            return self._start if row == "start" else lambda: self.episode(("print",))
        if row in EPISODES:
            return lambda: self.episode(EPISODES[row])
        if self._warm is None:
            self._warm = self.open_runner()
            for program in PROGRAMS.values():
                self._warm.run(program)
        warm = self._warm
        return lambda: warm.run(PROGRAMS[row])

    def episode(self, turns: Sequence[str]) -> None:
        """Open a session, run programs by name, and close it."""
        runner = self.open_runner()
        for turn in turns:
            runner.run(PROGRAMS[turn])
        runner.close()

    def close(self) -> None:
        """Close its sessions and what they share."""
        for runner in (*self._left, *([self._warm] if self._warm else ())):
            runner.close()
        self._close()

    def _start(self) -> None:
        self._left.append(self.open_runner())
        self._left[-1].run(PROGRAMS["print"])


class BareExec:
    """``exec`` in this process: no isolation, no copy, the cost of the code itself.

    It keeps the returned images, as our sessions and trajectories do.
    """

    def __init__(self, picture: Image.Image) -> None:
        self._namespace: dict[str, Any] = {"input_image": picture}
        self._kept: list[Image.Image] = []

    def run(self, program: Program) -> None:
        """Compile and execute."""
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(explicit(program), "<block>", "exec"), self._namespace)
        if program.shows:
            self._kept.append(self._namespace["out"])

    def close(self) -> None:
        """Delete variables and images."""
        self._namespace.clear()
        self._kept.clear()


class OurSession:
    """A session of our sandbox."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, program: Program) -> None:
        """Run a block and check its result."""
        code = f"{program.code}\nout" if program.shows == "out" else program.code
        execution = self.session.run(code)
        if not execution.is_ok or len(execution.images) != bool(program.shows):
            raise RuntimeError(f"a benchmark's block failed: {execution.error}")

    def close(self) -> None:
        """Close the session."""
        self.session.close()


def bare_exec(picture: Image.Image) -> Stateful:
    """Return the baseline."""
    return Stateful("bare exec", lambda: BareExec(picture), has_sessions=False)


def our_sandbox(name: str, sandbox: Sandbox, picture: Image.Image) -> Stateful:
    """Return one of our sandboxes as a contestant, which closes it."""

    def open_runner() -> OurSession:
        return OurSession(sandbox.session([picture]))

    return Stateful(name, open_runner, close=sandbox.close)


class FreshPython:
    """A new interpreter for every turn, without state."""

    name = "fresh python -c"
    stride = 4

    def __init__(self, picture: Image.Image, command: tuple[str, ...] = ()) -> None:
        self._picture = picture.tobytes()
        self._command = command or (sys.executable, "-c")

    def work(self, row: str) -> Callable[[], None] | None:
        """Return a function that does a row's work once; None for rows with sessions."""
        if row not in PROGRAMS:
            return None
        code, expected = one_shot(row)

        def turn() -> None:
            done = subprocess.run(
                [*self._command, code], input=self._picture, capture_output=True, check=True
            )
            check_bytes(done.stdout, expected)

        return turn

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def one_shot(name: str) -> tuple[str, int]:
    """Return a program that reads the image from its input, and the number of bytes it prints."""
    program = PROGRAMS[name]
    if not program.shows:
        return program.code, 2
    width, height = _SIZES[name]
    return READ_PICTURE + explicit(program) + WRITE_OUT, width * height * 3


def check_bytes(output: bytes, expected: int) -> None:
    """Check the output of a turn.

    Raises:
        RuntimeError: The number of bytes is wrong.
    """
    if len(output) != expected:
        raise RuntimeError(f"expected {expected} bytes of a benchmark's turn, got {len(output)}")
