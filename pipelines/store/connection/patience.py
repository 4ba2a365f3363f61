"""Waiting for an unreachable database, with messages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import StoreError

LONGEST_PAUSE_SECONDS = 5.0
_STEP_SECONDS = 0.25


def _log(text: str) -> None:
    logging.getLogger(__name__).warning(text)


@dataclass(slots=True)
class Patience:
    """Wait settings and state, shared by all threads of a store: each waits, one reports it.

    Attributes:
        seconds: Longest wait; 0 for none.
        say: Called with a message when the wait begins and when the database answers again.
        should_stop: Polled during the wait; True if the user requested a stop.
    """

    seconds: float = 0.0
    say: Callable[[str], None] = _log
    should_stop: Callable[[], bool] = lambda: False
    _away_since: float | None = None
    _has_given_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> Wait:
        """Return the wait of one piece of work."""
        return Wait(self)

    def note_away(self, error: StoreError) -> None:
        """Report, once, that the wait begins."""
        with self._lock:
            if self._away_since is not None:
                return
            self._away_since = time.monotonic()
        self.say(
            f"{error}\nwaiting for it, up to {_length(self.seconds)}; no data is lost meanwhile"
        )

    def note_back(self) -> None:
        """Report, once, that the database answers again."""
        if self._away_since is None and not self._has_given_up:
            return
        with self._lock:
            since, self._away_since, self._has_given_up = self._away_since, None, False
        if since is not None:
            self.say(f"the store answers again, after {_length(time.monotonic() - since)}")

    def give_up(self) -> None:
        """End all waits until the database answers."""
        with self._lock:
            self._has_given_up = True
            self._away_since = None

    @property
    def has_given_up(self) -> bool:
        """Whether a wait has failed and no work has succeeded since."""
        return self._has_given_up


class Wait:
    """The wait of one piece of work."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._until: float | None = None
        self._pause = 0.1

    def again(self, error: StoreError) -> bool:
        """Pause, and return whether to try again; False when the wait is over."""
        patience = self._patience
        if patience.seconds <= 0 or patience.has_given_up:
            return False
        if self._until is None:
            self._until = time.monotonic() + patience.seconds
        patience.note_away(error)
        if not self._sleep():
            patience.give_up()
            return False
        return True

    def end(self) -> None:
        """Record that the work has succeeded."""
        self._patience.note_back()

    def _sleep(self) -> bool:
        """Pause, longer each time; return False where the work should not be retried."""
        end = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        while (now := time.monotonic()) < end:
            if self._patience.should_stop():
                return False
            time.sleep(min(_STEP_SECONDS, end - now))
        return time.monotonic() < (self._until or 0.0)


def _length(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
