"""Sessions forked from one zygote, whether it runs beside the trainer or in a container."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from PIL import Image

from .capacity import allow_descriptors, available_memory_mb, turns_at_once
from .host.machine import describe_lacks, find_lacks
from .host.memory.cgroup import SessionGroups, find_hierarchy
from .host.pictures import InputPicture, PicturePool, read_pictures
from .host.process import SessionProcess
from .host.turn_gate import TurnGate
from .host.zygote import Zygote, ZygoteDied, ZygotePlan, start_beside
from .session import ReplayingSession, SessionHome
from .types import SandboxError, SandboxUnavailableError, Session, SessionState

_MOST_PICTURES = 64
_DYING_SECONDS = 0.05  # after a session's death, until it is certain that the zygote lives
_TIERS = ("none", "confined", "full")


class LocalSandbox:
    """Sessions forked from a zygote on this machine; safe to share between threads.

    Args:
        plan: Configuration of the zygote.
        floor: Minimum isolation level: ``confined`` or ``full``; ``none`` for no isolation.
        start: Function that starts a zygote, beside the trainer or in a container.

    Raises:
        SandboxError: The zygote does not start.
        SandboxUnavailableError: The machine does not reach the minimum isolation level.
    """

    def __init__(
        self,
        plan: ZygotePlan,
        *,
        floor: str,
        start: Callable[[ZygotePlan], Zygote] = start_beside,
    ) -> None:
        self._plan = plan
        self._floor = floor
        self._start = start
        self._pool = PicturePool()
        memory_mb = plan.limits.memory_mb
        self._gate = TurnGate(
            turns_at_once(memory_mb), has_room=lambda: available_memory_mb() >= memory_mb
        )
        self._lock = threading.Lock()
        self._sessions: set[ReplayingSession] = set()
        self._is_closed = False
        self._owner = os.getpid()
        self._zygote = start(plan)
        if _TIERS.index(self._zygote.tier) < _TIERS.index(floor):
            self._zygote.close()
            raise SandboxUnavailableError(
                f"this machine offers the tier {self._zygote.tier!r} "
                f"({self._zygote.isolation}), below the floor {floor!r}; lower the floor, or "
                f"add what is missing:\n"
                f"{describe_lacks(find_lacks())}"
            )
        is_beside = plan.interpreter is not None  # a container has limits of its own
        self._groups = SessionGroups.open(find_hierarchy() if is_beside else None)

    @property
    def tier(self) -> str:
        """Isolation level and its description."""
        level = f"{self._zygote.tier}: {self._zygote.isolation}"
        if self._groups is None or self._zygote.tier == "none":
            return level
        return f"{level}; {self._groups.description}"

    @property
    def process_id(self) -> int:
        """Process id of the zygote's outermost process."""
        return self._zygote.process_id

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        """Open a session that sees ``images`` as ``input_image`` and ``input_images``.

        Raises:
            ValueError: There are more than 64 images.
            SandboxError: The sandbox is closed or cannot fork.
        """
        pictures = read_pictures(images)
        digests = tuple(picture.digest for picture in pictures)
        return self._open(pictures, SessionState(seed=seed, image_digests=digests))

    def restore(self, state: SessionState, images: Sequence[Image.Image] = ()) -> Session:
        """Open a session at ``state``; its blocks are replayed and compared before the next one.

        Raises:
            ValueError: ``images`` are not those of the state.
            SandboxError: The sandbox is closed or cannot fork.
        """
        pictures = read_pictures(images)
        if tuple(picture.digest for picture in pictures) != state.image_digests:
            raise ValueError(
                f"restore needs the {len(state.image_digests)} pictures that the state was taken "
                f"with, got {len(pictures)} others; pass the images of the original session"
            )
        return self._open(pictures, state)

    def another(self) -> LocalSandbox:
        """Open a sandbox of the same kind with a worker of its own; turns are limited together.

        Raises:
            SandboxError: The worker does not start.
        """
        other = LocalSandbox(self._plan, floor=self._floor, start=self._start)
        other._gate = self._gate
        return other

    def close(self) -> None:
        """End every session and the worker; a second call does nothing."""
        with self._lock:
            if self._is_closed or self._owner != os.getpid():
                return
            self._is_closed = True
            sessions = list(self._sessions)
        for session in sessions:
            session.kill()
        self._zygote.close()
        for session in sessions:
            session.close()
        if self._groups is not None:
            self._groups.close()
        self._pool.close()

    def _open(self, pictures: tuple[InputPicture, ...], state: SessionState) -> Session:
        if len(pictures) > _MOST_PICTURES:
            raise ValueError(f"a session takes at most 64 pictures, got {len(pictures)}")

        def open_process() -> SessionProcess:
            return self._open_process(pictures, state.seed)

        allow_descriptors(len(self._sessions) + 1)
        home = SessionHome(
            open_process, self._gate, self._sessions.discard, self._plan.limits.session_pixels
        )
        session = ReplayingSession(home, state)
        session.start()
        with self._lock:
            self._sessions.add(session)
        return session

    def _open_process(self, pictures: tuple[InputPicture, ...], seed: int) -> SessionProcess:
        descriptors = [self._pool.descriptor(picture) for picture in pictures]
        sizes = [picture.size for picture in pictures]
        try:
            zygote = self._living_zygote()
            handles = zygote.open_session(seed, sizes, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return SessionProcess(
            handles,
            self._plan.limits,
            lambda: zygote.outlives(_DYING_SECONDS),
            groups=self._groups,
        )

    def _living_zygote(self) -> Zygote:
        """Return the zygote, restarted if it died."""
        with self._lock:
            if self._is_closed:
                raise SandboxError("this sandbox is closed")
            if self._owner != os.getpid():
                raise SandboxError("a forked process cannot use its parent's sandbox; open another")
            if not self._zygote.is_alive:
                with contextlib.suppress(ZygoteDied):
                    self._zygote.close()
                self._zygote = self._start(self._plan)
            return self._zygote

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
