"""A limit on the turns that run at once; waiting turns are served in order of arrival."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import Self


class TurnGate:
    """A fair semaphore: ``with gate.place():`` acquires one of ``places``.

    `threading.Semaphore` lets a newcomer overtake a waiter that was woken but has not run yet;
    under hundreds of sessions that starves some.

    A slow turn must not delay the others: it may lend its place to the next in the queue and
    continue. A turn that only waits (sleeps) may lend at any time; of those that compute, at most
    as many as there are places, so that at most twice that number compete for cores.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._free = places
        self._lent_by_busy = 0
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def place(self) -> Place:
        """Return a place, which is acquired and released as a context manager."""
        return Place(self)

    def take(self) -> None:
        """Wait for a place."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            turn.wait()
        except BaseException:  # an interrupt: leave the queue, or release the place
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._pass_on()
            raise

    def give(self) -> None:
        """Release a place."""
        with self._lock:
            self._pass_on()

    def lend(self) -> bool:
        """Lend a computing turn's place to the next in the queue, unless too many are lent."""
        with self._lock:
            if self._lent_by_busy >= self._places:
                return False
            self._lent_by_busy += 1
            self._pass_on()
        return True

    def end_loan(self) -> None:
        """Note the end of a turn that had lent its place while computing."""
        with self._lock:
            self._lent_by_busy -= 1

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1


class Place:
    """One turn's place at a gate."""

    def __init__(self, gate: TurnGate) -> None:
        self._gate = gate
        self._is_held = False
        self._is_loan = False

    def lend(self, *, is_busy: bool) -> None:
        """Let the next turn start while this one continues, as far as the gate allows."""
        if not self._is_held:
            return
        if is_busy:
            self._is_loan = self._gate.lend()
            self._is_held = not self._is_loan
        else:
            self._is_held = False
            self._gate.give()

    def __enter__(self) -> Self:
        self._gate.take()
        self._is_held = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_held:
            self._is_held = False
            self._gate.give()
        if self._is_loan:
            self._is_loan = False
            self._gate.end_loan()
