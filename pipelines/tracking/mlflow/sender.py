"""Sends the outbox to MLflow in a background thread; what cannot be sent waits on disk.

Each outbox file goes to the MLflow that it was written for. A server that does not answer is
retried after a while and does not block the others. An event that MLflow rejects is put aside, with
the reason, and does not block the events after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...config.home import Home
from ...store.store import Store
from ..outbox import (
    ADDRESS,
    Address,
    Event,
    OutboxReader,
    claim,
    count_unsent,
    keep_refused,
    outbox_files,
    remove_sent,
)
from ..tracker import Tracker

if TYPE_CHECKING:
    from .writer import MlflowWriter

PERIOD_SECONDS = 5.0
RETRY_SECONDS = 30.0
LAST_CHANCE_SECONDS = 60.0
GRACE_SECONDS = 5.0

Say = Callable[[str], None]


@dataclass(slots=True)
class _Server:
    """State of one MLflow: its writer, and when to retry if it does not answer."""

    address: Address
    session: MlflowWriter | None = None
    ask_again_at: float = 0.0
    is_away: bool = False


@dataclass(slots=True)
class OutboxSending:
    """Repeated passes over the outbox, in the caller's thread.

    Attributes:
        home: Home folder with the outbox and embedded MLflow.
        store: Store with the trajectories of traces.
        say: Called once with a message when MLflow is unreachable, or rejects something.
        own: Outbox file of this process, which it still writes to.
        is_over: Set to stop after the current event.
    """

    home: Home
    store: Store
    say: Say
    own: Path | None = None
    is_over: bool = False
    _servers: dict[Address, _Server] = field(default_factory=dict["Address", "_Server"])
    _offsets: dict[Path, int] = field(default_factory=dict["Path", "int"])

    def drain(self, *, at_once: bool = False) -> None:
        """Send what can be sent now.

        Args:
            at_once: Retry even servers that were unreachable a moment ago.
        """
        for path in outbox_files(self.home.outbox):
            if self.is_over:
                return
            if path == self.own:
                self._drain_known(path, at_once=at_once)
                continue
            with claim(path) as is_mine:
                if is_mine:
                    self._drain_known(path, at_once=at_once)

    def _drain_known(self, path: Path, *, at_once: bool) -> None:
        reader = OutboxReader(path)
        reader.offset = max(reader.offset, self._offsets.get(path, 0))
        address = reader.address or Address.of_environment(self.home.mlflow_uri)
        server = self._servers.setdefault(address, _Server(address))
        if server.is_away and not at_once and time.monotonic() < server.ask_again_at:
            return
        try:
            self._drain_to(server, reader)
            server.is_away = False
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises, training continues
            if not server.is_away:
                where, why = server.address.shown, brief(error)
                self.say(f"MLflow ({where}) cannot be reached ({why}); metrics wait on disk")
            server.is_away = True
            server.ask_again_at = time.monotonic() + RETRY_SECONDS
        finally:
            self._offsets[path] = reader.offset

    def _drain_to(self, server: _Server, reader: OutboxReader) -> None:
        while events := reader.read():
            place = 0
            while place < len(events):
                if self.is_over:
                    return
                place += self._send(server, reader, [event for event, _ in events[place:]])
                reader.mark(events[place - 1][1])
        if reader.is_done and reader.path != self.own:
            reader.remove()

    def _send(self, server: _Server, reader: OutboxReader, events: list[Event]) -> int:
        """Send the first event, and those that can go with it; return the number handled."""
        from .writer import MlflowWriter, is_refusal

        if events[0]["kind"] == ADDRESS:
            return 1
        if server.session is None:
            server.session = MlflowWriter(self.home, self.store, server.address)
        try:
            return server.session.send(events)
        except Exception as error:
            if not is_refusal(error):
                raise
            event, reason = events[0], brief(error)
            keep_refused(reader.path, event, reason)
            self.say(f"MLflow rejected the event {event['kind']} of {event['run']} ({reason})")
            return 1


class Sender:
    """Sends the outbox files of dead processes and of this one, until closed.

    Args:
        home: Home folder with the outbox and embedded MLflow.
        store: Store with the trajectories of traces.
        tracker: Tracker of this process, whose file no other sender may touch meanwhile.
        say: Called once with a message when MLflow is unreachable.
    """

    def __init__(self, home: Home, store: Store, tracker: Tracker, *, say: Say) -> None:
        self._home = home
        self._say = say
        self._tracker = tracker
        self._sending = OutboxSending(home, store, say, tracker.path)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-sender", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the tracker and send the rest, for a minute; report events that have to wait.

        The tracker's file is closed only when none of its events is being sent any more.
        """
        self._tracker.flush()
        self._closing.set()
        self._thread.join(LAST_CHANCE_SECONDS)
        self._sending.is_over = True
        self._thread.join(GRACE_SECONDS)
        left = count_unsent(self._home.outbox)
        if left:
            self._say(
                f"{left} events for MLflow wait in {self._home.outbox}; the next command sends "
                "them, or `codedance mlflow send`"
            )

    def _work(self) -> None:
        while not self._closing.is_set():
            self._closing.wait(PERIOD_SECONDS)
            if not self._closing.is_set():
                self._sending.drain()
        self._sending.drain(at_once=True)
        self._tracker.close()
        remove_sent(self._home.outbox)


def brief(error: BaseException) -> str:
    """Return an error as one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no reason given'}"[:160]
