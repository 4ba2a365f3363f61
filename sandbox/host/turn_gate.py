"""Bounds how many turns run at once; who waits is served in the order of arrival."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import Self


class TurnGate:
    """A fair semaphore: ``with gate.place():`` holds one of ``places``.

    `threading.Semaphore` lets a newcomer overtake a waiter that was woken but has not run yet;
    under hundreds of sessions that starves some.

    A slow turn must not hold its neighbours up: it may lend its place to the next in line and go
    on. One that only waits (it sleeps) lends it at any time; of those that compute, as many at
    once as there are places, so that no more than twice as many ever want a core.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._free = places
        self._lent_by_busy = 0
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def place(self) -> Place:
        """Return a place to wait for, to hold and to leave as a context."""
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
        except BaseException:  # an interrupt: leave the queue, or pass the place on
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._pass_on()
            raise

    def give(self) -> None:
        """Return a place back."""
        with self._lock:
            self._pass_on()

    def lend(self) -> bool:
        """Return a computing turn's place to the next in line, unless too many have lent theirs."""
        with self._lock:
            if self._lent_by_busy >= self._places:
                return False
            self._lent_by_busy += 1
            self._pass_on()
        return True

    def end_loan(self) -> None:
        """Say that a turn which had lent its place while computing has ended."""
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
        """Let the next in line start while this turn goes on, as far as the gate allows."""
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
