"""The places that a command works with, opened once: store, tracker, progress, sandbox, stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType

from ...sandbox.types import Sandbox
from ..config.home import Home, find_home, prepare_environment
from ..config.settings import SandboxSettings, open_configured
from ..store.connection.patience import Patience
from ..store.store import Store, open_store
from ..tracking.mlflow.sender import Sender
from ..tracking.outbox import Address
from ..tracking.tracker import Tracker
from .context import OnAlarm, Stop, ignore_alarm
from .progress import Progress, open_progress

_current: ContextVar[RunSession | None] = ContextVar("desk", default=None)


@dataclass(slots=True)
class RunSession:
    """What stays open from the first stage of a command to the last.

    Attributes:
        home: The folder that all of it lies in.
        store: The trajectory store.
        tracker: Where figures go.
        progress: Where progress is shown.
        stop: Set by Ctrl-C.
        on_alarm: Told of each alarm at once; a flow shows it on its page.
    """

    home: Home
    store: Store
    tracker: Tracker
    progress: Progress
    stop: Stop = field(default_factory=Stop)
    on_alarm: OnAlarm = ignore_alarm
    _sandboxes: dict[SandboxSettings, Sandbox] = field(
        default_factory=dict["SandboxSettings", Sandbox]
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sandbox(self, settings: SandboxSettings) -> Sandbox:
        """Return the sandbox of these settings, opened on the first call.

        Raises:
            SandboxError: This machine cannot run it.
        """
        with self._lock:
            if settings not in self._sandboxes:
                self._sandboxes[settings] = open_configured(settings)
            return self._sandboxes[settings]

    def close(self) -> None:
        """Close the sandboxes and the store."""
        with self._lock:
            while self._sandboxes:
                self._sandboxes.popitem()[1].close()
        self.store.close()


@contextmanager
def open_session(home: Home | None = None, *, track: bool = True) -> Generator[RunSession]:
    """Provide the desk of this command or flow; one that is open already is shared.

    Args:
        home: The folder; found by ``CODEDANCE_DIR`` when None.
        track: Whether MLflow is told.
    """
    shared = _current.get()
    if shared is not None:
        with _heeded_signals(shared):  # a flow within a flow has its own in their place
            yield shared
        return
    home = home or find_home()
    prepare_environment(home)
    progress, stop = open_progress(), Stop()
    patience = Patience(home.store_wait_seconds, progress.say, stop.is_requested)
    store = open_store(home, patience)
    address = Address.of_environment(home.mlflow_uri)
    tracker = Tracker(home.outbox if track else None, address=address)
    sender = Sender(home, store, tracker, say=progress.say) if track else None
    session = RunSession(home, store, tracker, progress, stop)
    token = _current.set(session)
    try:
        with _heeded_signals(session):
            yield session
    finally:
        _current.reset(token)
        tracker.close() if sender is None else sender.close()
        if tracker.lost:
            progress.say(f"{home.outbox} is full: {tracker.lost} events for MLflow are lost")
        session.close()


@contextmanager
def _heeded_signals(session: RunSession) -> Generator[None]:
    """Make Ctrl-C and SIGTERM ask to stop; a second one is raised as KeyboardInterrupt.

    Every file of ours is written so that stopping at any instruction loses at most the step that
    was under way.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def heed(number: int, _frame: FrameType | None) -> None:
        if session.stop.is_requested():
            raise KeyboardInterrupt
        session.stop.request()
        if number == signal.SIGINT:
            session.progress.say("stopping after the step under way …")

    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
