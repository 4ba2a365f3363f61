"""Bounds how many turns run at once; who waits is served in the order of arrival."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class TurnGate:
    """A fair semaphore: ``with gate:`` holds one of ``places``.

    `threading.Semaphore` lets a newcomer overtake a waiter that was woken but has not run yet;
    under hundreds of sessions that starves some.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            turn.wait()
        except BaseException:  # an interrupt: leave the queue, or pass the place on
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._pass_on()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1
