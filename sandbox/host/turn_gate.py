"""A limit on the turns that compute at once, in time slices.

A turn that arrives is served before those that have run already, so that a short one waits for at
most one slice of each turn ahead of it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

SLICE_SECONDS = 0.1
"""Time for which a turn keeps its place while others wait."""

_NEW_IN_A_ROW = 4  # new turns served before one that has run already
_FEW = 2  # started turns per place for which the memory is not asked
_ASK_AGAIN_SECONDS = 0.5


def _always() -> bool:
    return True


class TurnGate:
    """Hands out ``places``, one per core; ``with gate.place():`` acquires the first one of a turn.

    New turns are served in the order of arrival, and after every `_NEW_IN_A_ROW` of them one of
    the turns that continue, in the order in which these gave up their places. The first in line
    waits until as many places are free as it needs; nobody overtakes it.

    Args:
        places: Number of turns that compute at once.
        has_room: Whether the memory suffices for one more turn; asked when more than `_FEW` turns
            per place have started.
        now: Clock, in seconds.
    """

    def __init__(
        self,
        places: int,
        *,
        has_room: Callable[[], bool] = _always,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.places = places
        self.now = now
        self._has_room = has_room
        self._free = places
        self._started = 0
        self._new_in_a_row = 0
        self._lock = threading.Lock()
        self._new: deque[Place] = deque()
        self._continuing: deque[Place] = deque()

    def place(self) -> Place:
        """Return the place of a new turn, acquired and released as a context manager."""
        return Place(self)

    @property
    def is_wanted(self) -> bool:
        """Whether a turn waits for a place."""
        return bool(self._new or self._continuing)

    def ask(self, place: Place) -> None:
        """Queue for a place, which may be granted at once."""
        with self._lock:
            if self._is_idle and place.width <= self._free:  # as nearly always
                self._give(place, place.width)
                return
            place.granted = threading.Event()
            (self._continuing if place.has_started else self._new).append(place)
            self._grant()

    def grant(self) -> None:
        """Hand out the places that are free."""
        with self._lock:
            self._grant()

    def release(self, place: Place) -> None:
        """Take back a granted place."""
        with self._lock:
            self._take_back(place)
            self._grant()

    def leave(self, place: Place) -> None:
        """End a turn, whether its place is granted, queued or neither."""
        with self._lock:
            if not place.held:
                for queue in (self._new, self._continuing):
                    if place in queue:
                        queue.remove(place)
            self._started -= place.has_started
            self._take_back(place)
            if self._new or self._continuing:
                self._grant()

    @property
    def _is_idle(self) -> bool:
        return self._started < self.places and not self._new and not self._continuing

    def _take_back(self, place: Place) -> None:
        self._free += place.held
        place.held = 0

    def _give(self, place: Place, width: int) -> None:
        if not place.has_started:
            self._started += 1
            place.has_started = True
        self._free -= width
        place.held, place.since = width, self.now()

    def _grant(self) -> None:
        while queue := self._next_queue():
            width = min(queue[0].width, self.places)
            if width > self._free:
                return
            place = queue.popleft()
            is_overtaking = queue is self._new and bool(self._continuing)
            self._new_in_a_row = self._new_in_a_row + 1 if is_overtaking else 0
            self._give(place, width)
            if place.granted is not None:
                place.granted.set()

    def _next_queue(self) -> deque[Place]:
        """Return the queue that is served next, which may be empty."""
        is_due = self._continuing and self._new_in_a_row >= _NEW_IN_A_ROW
        if self._new and not is_due and self._may_start():
            return self._new
        return self._continuing

    def _may_start(self) -> bool:
        return self._free > 0 and (self._started < _FEW * self.places or self._has_room())


class Place:
    """One turn's place at a gate: granted, waited for, or given up while the turn sleeps.

    Args:
        gate: The gate.

    Attributes:
        width: Number of places that the turn needs, from its next grant on.
        held: Number of places that it has.
        since: Time of the last grant.
        has_started: Whether it has had a place.
        granted: Set when the place that it last queued for is granted.
    """

    __slots__ = ("_gate", "granted", "has_started", "held", "since", "width")

    def __init__(self, gate: TurnGate) -> None:
        self._gate = gate
        self.width = 1
        self.held = 0
        self.since = 0.0
        self.has_started = False
        self.granted: threading.Event | None = None

    @property
    def most(self) -> int:
        """Number of places of the gate."""
        return self._gate.places

    @property
    def is_due(self) -> bool:
        """Whether its slice is over and another turn waits."""
        return self._gate.is_wanted and self._gate.now() - self.since >= SLICE_SECONDS

    def lend(self) -> None:
        """Give up the place while the turn sleeps."""
        if self.held:
            self._gate.release(self)

    def renew(self) -> bool:
        """Queue again, behind those that wait; return whether the place is granted at once."""
        self.lend()
        self._gate.ask(self)
        return self.held > 0

    def wait(self) -> None:
        """Wait until the place is granted."""
        while not self.held and self.granted is not None:
            if not self.granted.wait(_ASK_AGAIN_SECONDS):
                self._gate.grant()  # memory may have become free meanwhile

    def hold(self) -> None:
        """Wait for the place unless the turn has it: a replay's next block starts with one."""
        if not self.held:
            self._gate.ask(self)
            if not self.held:
                self.wait()

    def __enter__(self) -> Self:
        try:
            self.hold()
        except BaseException:  # an interrupt: leave the queue, or release the place
            self._gate.leave(self)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._gate.leave(self)
