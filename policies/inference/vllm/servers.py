"""Several equal servers: the least busy one first, and the same one for all turns of an episode.

An episode stays with its server, whose prefix cache holds its earlier turns, unless that server
fails. A server that failed rests for a while, twice as long after each failure in a row; then a
single request looks whether it is back.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
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
        homes: Number of episodes that it was chosen for.
        failures: Number of failures since its last answer.
        rests_until: Time until which it gets no requests.
        reason: Its last failure, in words.
        is_looked_up: Whether it has been asked for its context length since its last failure.
        context_length: Longest prompt and reply together, in tokens; None where it is not known.
    """

    url: str
    busy: int = 0
    homes: int = 0
    failures: int = 0
    rests_until: float = 0.0
    reason: str = ""
    is_looked_up: bool = False
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
        checked = [_base(url) for url in urls]
        if not checked or len(set(checked)) < len(checked):
            raise ValueError(f"expected the URLs of different vLLM servers, got {list(urls)}")
        self.all = tuple(Server(url) for url in checked)
        self.has_answered = False
        self._clock = clock
        self._homes: OrderedDict[int, Server] = OrderedDict()
        self._lock = threading.Lock()

    def enter(self, episode: int, *, without: Collection[Server] = ()) -> Server | None:
        """Choose the server of an episode's next request; None while no other can be asked.

        Args:
            episode: Number that identifies the episode.
            without: Servers that are not to be asked.
        """
        with self._lock:
            now = self._clock()
            ready = [one for one in self.all if one not in without and _is_ready(one, now)]
            if not ready:
                return None
            chosen = self._homes.pop(episode, None)
            if chosen is None or chosen not in ready:
                chosen = min(ready, key=lambda one: (one.busy, one.homes))
                chosen.homes += 1
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
        """Record a failure of a server, which rests from now on."""
        with self._lock:
            server.reason = reason
            server.is_looked_up = False  # it may come back with another context
            now = self._clock()
            if server.rests_until > now:  # requests that failed together are one failure
                return
            rest = min(_FIRST_REST_SECONDS * 2.0**server.failures, _LONGEST_REST_SECONDS)
            server.failures = min(server.failures + 1, _MOST_FAILURES)
            server.rests_until = now + rest

    def look_up_again(self, *, without: Collection[str] = ()) -> None:
        """Treat servers as if they had been away: each is looked up before its next request.

        Args:
            without: Base URLs of servers that stay as they are.
        """
        kept = {_base(url) for url in without}
        with self._lock:
            for server in self.all:
                if server.url not in kept:
                    server.is_looked_up = False

    def rest(self, server: Server, reason: str) -> None:
        """Let a paused server rest for a moment; that is no failure."""
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


def _base(url: str) -> str:
    """Return the base URL of a server, without the prefix of OpenAI's interface."""
    return checked_url(url).removesuffix("/v1").rstrip("/")


def _is_ready(server: Server, now: float) -> bool:
    """Return whether a server can be asked: by a single request until it is known to answer."""
    return server.rests_until <= now and (server.is_looked_up or not server.busy)
