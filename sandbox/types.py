"""Types of the sandbox's interface: limits, executions, session states and errors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from PIL import Image

DEFAULT_LIBRARIES: tuple[str, ...] = ("numpy", "PIL", "cv2", "matplotlib.pyplot")
"""Libraries that the zygote imports once; they are loaded in every session."""


_ADDRESS = re.compile(r"(?<=\bat )0x[0-9a-fA-F]+")  # of an object, as its repr shows it
_WORD = re.compile(r"[^\s'\"]+")
_OWN_FOLDER = re.compile(
    r"/codedance-\w+/\d+(?:-[0-9a-f]+)?"
)  # of a session without a root of its own


class SandboxError(RuntimeError):
    """A failure of our infrastructure (isolation could not be set up, the worker is unreachable).

    Model code never raises this: what code causes is an `Outcome`.
    """


class SandboxUnavailableError(SandboxError):
    """This machine lacks a requirement of the sandbox; a retry would not help.

    Examples are a minimum isolation level that the machine does not reach, a missing Docker engine
    or image, and an interpreter that does not run. The message says what is missing and how to get
    it.
    """


class SessionLostError(SandboxError):
    """The worker died while it ran a block, again and again."""


class Outcome(StrEnum):
    """How a block of model code ended."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of one session; every limit has its own message to the model.

    Limits on time, output and images apply per block, the others per session.

    Attributes:
        wall_seconds: Wall-clock time.
        cpu_seconds: Processor time.
        memory_mb: Memory in addition to that of the libraries loaded before the session, in MiB.
        processes: Processes; a session is one.
        threads: Threads.
        open_files: Open files.
        disk_mb: Disk space, in MiB.
        output_characters: Characters of each output stream.
        images: Images shown.
        image_pixels: Pixels of all images shown.
        session_pixels: Pixels of all images that the blocks of a session show, since the host keeps
            them as long as the episode.
    """

    wall_seconds: float = 15.0
    cpu_seconds: float = 15.0
    memory_mb: int = 1024
    processes: int = 1
    threads: int = 16
    open_files: int = 64
    disk_mb: int = 64
    output_characters: int = 8_000
    images: int = 8
    image_pixels: int = 16_777_216
    session_pixels: int = 33_554_432

    def __post_init__(self) -> None:
        """Refuse limits under which no program can run."""
        for name in self.__slots__:
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"Limits.{name} must be above 0, got {value!r}")


@dataclass(frozen=True, slots=True)
class Execution:
    """The sandbox's record of one block of code.

    Attributes:
        outcome: How the block ended.
        stdout: Text printed, including the repr of the last expression; truncated at the limit.
        stderr: Text written to standard error; truncated at the limit.
        error: One-line error, such as ``"NameError: …, line 3"``; None when the outcome is OK.
        images: Images shown, RGB, in order.
        wall_seconds: Wall-clock time from sending the block to its verdict.
        cpu_seconds: Processor time used by the block.
        has_handled_error: Whether the block raised an error, handled it and ended OK. No digest
            includes it.
    """

    outcome: Outcome
    stdout: str = ""
    stderr: str = ""
    error: str | None = None
    images: tuple[Image.Image, ...] = ()
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    has_handled_error: bool = False

    @property
    def is_ok(self) -> bool:
        """Whether the block ran to its end."""
        return self.outcome is Outcome.OK

    @property
    def is_silent(self) -> bool:
        """Whether it returned neither text nor image."""
        return not (self.stdout.strip() or self.stderr.strip() or self.images)

    @property
    def digest(self) -> str:
        """SHA-256 of the result (outcome, text, error, pixels), without times and addresses."""
        return output_digest(self)


def output_digest(execution: Execution, folders: Sequence[str] = ()) -> str:
    """Hash the result of a block; executions with equal digests look the same to a model.

    Addresses (``<PIL.Image.Image … at 0x7F31C0>``) and the name of the session's own folder are
    left out: they differ between processes.

    Args:
        execution: Result of the block.
        folders: Installation folders of Python, the longest first: left out, since they differ
            between machines, and code may print the name of a library's file.
    """
    sha = hashlib.sha256()
    for text in (execution.outcome, execution.stdout, execution.stderr, execution.error or ""):
        common = _WORD.sub(_without_own_folder, _ADDRESS.sub("0x", text))
        for folder in folders:
            common = common.replace(folder, "<python>")
        data = common.encode("utf-8", "backslashreplace")
        sha.update(len(data).to_bytes(8, "big") + data)
    for image in execution.images:
        sha.update(f"{image.mode} {image.width} {image.height}".encode())
        sha.update(image.tobytes())
    return sha.hexdigest()


def _without_own_folder(word: re.Match[str]) -> str:
    """Replace a session's own folder, at any isolation level, by ``/tmp``; linear in the text."""
    text = word[0].replace("/session/tmp", "/tmp")
    start = text.find("/")
    own = [found.end() for found in _OWN_FOLDER.finditer(text) if found.start() > start]
    return f"{text[:start]}/tmp{text[own[-1] :]}" if own else text


@dataclass(frozen=True, slots=True)
class SessionState:
    """A state from which a session can be rebuilt anywhere by replay: small, without handles.

    Attributes:
        seed: Seed of the session's random sources.
        blocks: The successful blocks, in order.
        output_digests: `Execution.digest` of each block, without the folders of Python; compared on
            replay.
        image_digests: SHA-256 of the pixels of each input image, so that other images are refused.
    """

    seed: int = 0
    blocks: tuple[str, ...] = ()
    output_digests: tuple[str, ...] = ()
    image_digests: tuple[str, ...] = field(default=())


class Session(Protocol):
    """Interpreter of one episode: variables persist from block to block."""

    def run(self, code: str) -> Execution:
        """Run a block; a block that fails leaves the state of the last successful one."""
        ...

    def snapshot(self) -> SessionState:
        """Return the state after the last successful block."""
        ...

    def close(self) -> None:
        """End the session's process; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Sandbox(Protocol):
    """Factory of sessions; safe to share between threads."""

    @property
    def tier(self) -> str:
        """Isolation level and its description."""
        ...

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        """Open a session that sees ``images`` as ``input_image`` and ``input_images``."""
        ...

    def restore(self, state: SessionState, images: Sequence[Image.Image] = ()) -> Session:
        """Open a session at ``state`` by replaying its blocks and comparing their digests."""
        ...

    def close(self) -> None:
        """End every session and the worker."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class SeparableSandbox(Sandbox, Protocol):
    """A sandbox that can start a further worker."""

    def another(self) -> Sandbox:
        """Open a sandbox of the same kind with a worker of its own; turns are limited together."""
        ...
