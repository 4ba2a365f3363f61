"""Brings MLflow up to date in a thread while a command works; training never waits for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ...config.home import Home
from ...store.store import Store
from ..tracker import Tracker
from .address import Address

if TYPE_CHECKING:
    from .sync import MlflowSync, Say

PERIOD_SECONDS = 5.0
RETRY_SECONDS = 30.0
LAST_CHANCE_SECONDS = 60.0


class SyncThread:
    """Syncs the runs that the tracker of this process has touched, until closed.

    Args:
        say: Called once with a message when MLflow is unreachable, or rejects something.
    """

    def __init__(
        self, home: Home, store: Store, tracker: Tracker, address: Address, *, say: Say
    ) -> None:
        self._home, self._store, self._tracker = home, store, tracker
        self._address, self._say = address, say
        self._sync: MlflowSync | None = None
        self._is_away = False
        self._closing, self._giving_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-sync", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sync once more, for a minute; say how to catch up with what MLflow lacks then."""
        self._closing.set()
        self._thread.join(LAST_CHANCE_SECONDS)
        self._giving_up.set()
        if (self._thread.is_alive() or self._is_away) and self._tracker.touched:
            self._say(
                f"MLflow lacks some of this: `codedance mlflow sync {self._tracker.touched[0]}` "
                "brings it up to date once it answers"
            )

    def _work(self) -> None:
        while not self._closing.wait(RETRY_SECONDS if self._is_away else PERIOD_SECONDS):
            self._pass()
        self._pass()

    def _pass(self) -> None:
        """Sync the touched runs, until MLflow does not answer."""
        if not self._tracker.touched:
            return
        from .sync import MlflowSync, brief

        try:
            for run in list(self._tracker.touched):
                if self._giving_up.is_set():
                    return
                if self._sync is None:
                    self._sync = MlflowSync(self._home, self._store, self._address, self._say)
                self._sync.sync(run)
            self._is_away = False
        except Exception as error:  # noqa: BLE001 - whatever MLflow raises, training continues
            if not self._is_away:
                where, why = self._address.shown, brief(error)
                self._say(f"MLflow ({where}) cannot be reached ({why}); the runs go on without it")
            self._is_away = True
