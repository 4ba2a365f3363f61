"""Several equal servers: least busy first, the same one for all turns of an episode, dead ones out.

An episode stays with its server, whose prefix cache holds its earlier turns, unless that server
fails. A server that failed is left alone for a while, twice as long after each failure in a row.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..server_words import checked_url

_FIRST_REST_SECONDS = 0.25
_LONGEST_REST_SECONDS = 15.0
_MOST_FAILURES = 16  # in a row; more change nothing
_MOST_HOMES = 100_000  # episodes whose server is remembered; older ones choose again


@dataclass(slots=True, eq=False)
class Server:
    """One server.

    Attributes:
        url: Base URL, without ``/v1``.
        busy: Number of our requests that it is working on.
        failures: Number of failures since its last answer.
        rests_until: Time until which it is left alone.
        reason: Its last failure, in words.
        context_length: Longest prompt and reply together, in tokens; None until it is known.
    """

    url: str
    busy: int = 0
    failures: int = 0
    rests_until: float = 0.0
    reason: str = ""
    context_length: int | None = None


class Servers:
    """Chooses a server for each request; thread-safe.

    Args:
        urls: Base URL of each server; a final ``/v1`` is ignored.
        clock: Monotonic clock, in seconds.

    Raises:
        ValueError: There is no URL, one is listed twice, or one is not a URL.
    """

    def __init__(self, urls: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        checked = [checked_url(url).removesuffix("/v1").rstrip("/") for url in urls]
        if not checked or len(set(checked)) < len(checked):
            raise ValueError(f"expected the URLs of different vLLM servers, got {list(urls)}")
        self.all = tuple(Server(url) for url in checked)
        self.has_answered = False
        self._clock = clock
        self._homes: OrderedDict[int, Server] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def context_length(self) -> int | None:
        """Longest prompt and reply that every server takes; None where it is not known."""
        return min((one.context_length for one in self.all if one.context_length), default=None)

    def enter(self, episode: int) -> Server | None:
        """Choose the server of an episode's next request; None while all are left alone.

        Args:
            episode: Number that identifies the episode.
        """
        with self._lock:
            now = self._clock()
            awake = [one for one in self.all if one.rests_until <= now]
            if not awake:
                return None
            home = self._homes.pop(episode, None)
            chosen = home if home in awake else min(awake, key=lambda one: one.busy)
            self._homes[episode] = chosen
            if len(self._homes) > _MOST_HOMES:
                self._homes.popitem(last=False)
            chosen.busy += 1
            return chosen

    def leave(self, server: Server) -> None:
        """Count a request as done, whatever came of it."""
        with self._lock:
            server.busy -= 1

    def succeeded(self, server: Server) -> None:
        """Record an answer of a server."""
        with self._lock:
            self.has_answered = True
            server.failures, server.rests_until = 0, 0.0

    def failed(self, server: Server, reason: str) -> None:
        """Record a failure of a server, which is left alone from now on for a while."""
        with self._lock:
            server.reason = reason
            now = self._clock()
            if server.rests_until > now:  # requests that failed together are one failure
                return
            rest = min(_FIRST_REST_SECONDS * 2.0**server.failures, _LONGEST_REST_SECONDS)
            server.failures = min(server.failures + 1, _MOST_FAILURES)
            server.rests_until = now + rest

    def rest(self, server: Server, reason: str) -> None:
        """Leave a paused server alone for a moment; that is no failure."""
        with self._lock:
            server.reason = reason
            self.has_answered = True
            server.rests_until = self._clock() + _FIRST_REST_SECONDS

    @property
    def reason(self) -> str:
        """Last failure of the server that can be tried again first."""
        return min(self.all, key=lambda one: one.rests_until).reason

    @property
    def seconds_left(self) -> float:
        """Seconds until a server can be tried again; 0.0 where one can be now."""
        with self._lock:
            soonest = min(one.rests_until for one in self.all)
            return max(soonest - self._clock(), 0.0)
