"""An OpenAI-compatible server: where it is, how fast it may be asked, what it costs and cost."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

OPENAI_PREFIX = "openai:"
_MINUTE = 60.0
_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and how to treat it.

    Attributes:
        base_url: Such as ``http://localhost:8000/v1``; None for the environment's
            ``OPENAI_BASE_URL``.
        api_key: None for the environment's ``OPENAI_API_KEY``; servers of one's own need none.
        requests_per_minute: The most that are sent; 0.0 for no limit.
        tokens_per_minute: The most that are read and written; 0.0 for no limit.
        price_input: Of a million tokens read, in any currency.
        price_output: Of a million tokens written.
        concurrency: Requests at a time.
        timeout_seconds: Of one request.
        max_retries: How often a busy, failing or silent server is asked again.
    """

    base_url: str | None = None
    api_key: str | None = None
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    price_input: float = 0.0
    price_output: float = 0.0
    concurrency: int = 8
    timeout_seconds: float = 120.0
    max_retries: int = 4


@dataclass(slots=True)
class Usage:
    """What a server was asked for so far, by its own count.

    Attributes:
        requests: Sent, those that were asked again included.
        retries: Of those, how many asked again.
        failures: Conversations that got no reply.
        input_tokens: Read.
        output_tokens: Written.
        cost: Of both, at the given prices.
    """

    requests: int = 0
    retries: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0

    def __str__(self) -> str:
        """Say it in one line."""
        again = f" ({self.retries} asked again)" if self.retries else ""
        lost = f", {self.failures} without reply" if self.failures else ""
        cost = f", cost {self.cost:.4f}" if self.cost else ""
        return (
            f"{self.requests:,} requests{again}{lost}, {self.input_tokens:,} tokens read, "
            f"{self.output_tokens:,} written{cost}"
        )

    def figures(self) -> dict[str, float]:
        """Return all of it by name."""
        return {name: float(value) for name, value in asdict(self).items()}


class Meter:
    """Counts what is used and makes those wait who would ask too fast; safe in threads.

    Args:
        endpoint: Its limits and prices.
        sleep: How it waits.
        clock: Seconds that pass.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.usage = Usage()
        self._endpoint = endpoint
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: deque[list[float]] = deque()  # of the last minute: when, and tokens

    def enter(self, expected_tokens: float) -> list[float]:
        """Wait until one more request is within the limits; gives what `leave` wants back."""
        while True:
            with self._lock:
                wait = self._wait(expected_tokens)
                if wait <= 0.0:
                    entry = [self._clock(), expected_tokens]
                    self._asked.append(entry)
                    self.usage.requests += 1
                    return entry
            self._sleep(wait)

    def leave(self, entry: list[float], *, read: int, written: int) -> None:
        """Note what a request took in the end."""
        prices = self._endpoint.price_input, self._endpoint.price_output
        with self._lock:
            entry[1] = float(read + written)
            self.usage.input_tokens += read
            self.usage.output_tokens += written
            self.usage.cost += (read * prices[0] + written * prices[1]) / _MILLION

    def count(self, *, retries: int = 0, failures: int = 0) -> None:
        """Note that something went wrong."""
        with self._lock:
            self.usage.retries += retries
            self.usage.failures += failures

    def _wait(self, tokens: float) -> float:
        """Return the seconds until a request with so many tokens may go, 0.0 for now.

        One that is larger than the limit by itself goes when no other is within the minute.
        """
        now = self._clock()
        while self._asked and self._asked[0][0] <= now - _MINUTE:
            self._asked.popleft()
        limits = self._endpoint
        over_requests = limits.requests_per_minute and len(self._asked) + 1 > (
            limits.requests_per_minute
        )
        used = sum(entry[1] for entry in self._asked)
        over_tokens = limits.tokens_per_minute and used + tokens > limits.tokens_per_minute
        if self._asked and (over_requests or over_tokens):
            return max(self._asked[0][0] + _MINUTE - now, 0.001)
        return 0.0
