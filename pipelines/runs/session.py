"""The session of a run, opened once per command: store, tracker, progress, sandbox, stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType

from ...sandbox.types import Sandbox
from ..config.home import Home, find_home, prepare_environment
from ..config.sections.sandbox_settings import SandboxSettings, open_configured
from ..store.claims import Claim, held
from ..store.connection.patience import Patience
from ..store.store import Store, open_store
from ..tracking.mlflow.address import Address, named_place
from ..tracking.mlflow.sync_thread import SyncThread
from ..tracking.tracker import Tracker
from .context import OnAlarm, Stop, ignore_alarm
from .progress import Progress, open_progress

_current: ContextVar[RunSession | None] = ContextVar("session", default=None)


@dataclass(slots=True)
class RunSession:
    """The resources that stay open from the first stage of a command to the last.

    Attributes:
        home: The folder with all state.
        store: The trajectory store.
        tracker: Tracker of metrics and artifacts.
        progress: Display of the progress.
        stop: Stop request, set by Ctrl-C.
        on_alarm: Called with each alarm at once; a flow shows it on its page.
        claim: Claim of the stage that is running; None between stages.
        pipelines: Ids of the pipeline runs that this process works for.
    """

    home: Home
    store: Store
    tracker: Tracker
    progress: Progress
    stop: Stop = field(default_factory=Stop)
    on_alarm: OnAlarm = ignore_alarm
    claim: Claim | None = None
    pipelines: set[str] = field(default_factory=set[str])
    _sandboxes: dict[SandboxSettings, Sandbox] = field(
        default_factory=dict["SandboxSettings", Sandbox]
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sandbox(self, settings: SandboxSettings) -> Sandbox:
        """Return the sandbox with these settings, opened on the first call.

        Raises:
            SandboxError: This machine cannot run the sandbox.
        """
        with self._lock:
            if settings not in self._sandboxes:
                self._sandboxes[settings] = open_configured(settings)
            return self._sandboxes[settings]

    @contextmanager
    def holding(self, claim: Claim) -> Generator[None]:
        """Hold the claim of the work that this session does, which fences all that it writes.

        Raises:
            ClaimLostError: Another process has taken over the work.
        """
        with held(self.store.database, claim):
            self.claim, self.tracker.writer.guard = claim, claim.check
            try:
                yield
            finally:
                self.claim, self.tracker.writer.guard = None, None

    def close(self) -> None:
        """Close the sandboxes and the store."""
        with self._lock:
            while self._sandboxes:
                self._sandboxes.popitem()[1].close()
        self.store.close()


@contextmanager
def open_session(home: Home | None = None, *, track: bool = True) -> Generator[RunSession]:
    """Open the session of this command or flow; a session that is already open is shared.

    Args:
        home: State folder; None for the one that ``CODEDANCE_DIR`` names.
        track: Whether MLflow is brought up to date with the runs.

    Yields:
        The session, closed at the end by the context that opened it.
    """
    shared = _current.get()
    if shared is not None:
        with _stopped_by_signals(shared):  # a nested flow has replaced the handlers
            yield shared
        return
    home = home or find_home()
    prepare_environment(home)
    progress, stop = open_progress(), Stop()
    patience = Patience(home.store_wait_seconds, progress.say, stop.is_requested)
    store = open_store(home, patience)
    place = named_place()
    tracker = Tracker(home.stages, place)
    address = Address(home.mlflow_uri, **place)
    sync = SyncThread(home, store, tracker, address, say=progress.say) if track else None
    session = RunSession(home, store, tracker, progress, stop)
    token = _current.set(session)
    try:
        with _stopped_by_signals(session):
            yield session
    finally:
        _current.reset(token)
        with contextlib.suppress(OSError):  # a folder that cannot be written was reported already
            tracker.writer.flush()
        if sync is not None:
            sync.close()
        if left := tracker.writer.waiting:
            progress.say(f"{home.stages}: no space for {left} lines of metrics, which are lost")
        session.close()


@contextmanager
def _stopped_by_signals(session: RunSession) -> Generator[None]:
    """Make Ctrl-C and SIGTERM request a stop; a second one raises KeyboardInterrupt.

    All files are written such that a stop at any instruction loses at most the current step.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if session.stop.is_requested():
            raise KeyboardInterrupt
        session.stop.request()
        if number == signal.SIGINT:
            session.progress.say("stopping after the current step …")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
