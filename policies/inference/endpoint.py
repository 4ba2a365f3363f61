"""An OpenAI-compatible server: address, rate limits, prices and usage."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

OPENAI_PREFIX = "openai:"
_MINUTE = 60.0
_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server with its limits and prices.

    Attributes:
        base_url: Base URL, such as ``http://localhost:8000/v1``; None for the environment's
            ``OPENAI_BASE_URL``.
        api_key: API key; None for the environment's ``OPENAI_API_KEY``; local servers need none.
        requests_per_minute: Limit of requests per minute; 0.0 for no limit.
        tokens_per_minute: Limit of input and output tokens per minute; 0.0 for no limit.
        price_input: Price per million input tokens, in any currency.
        price_output: Price per million output tokens.
        concurrency: Number of concurrent requests.
        timeout_seconds: Timeout per request.
        max_retries: Number of retries of a busy, failing or unresponsive server.
        notes: Folder or hub id of the model that the server has (its weights are not read):
            episodes are opened as it was trained, and images are sent at its size; None for a
            model of which nothing is known.
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
    notes: str | None = None


@dataclass(slots=True)
class Usage:
    """Usage of a server so far, by its own count.

    Attributes:
        requests: Number of requests, retries included.
        retries: Number of retries.
        failures: Number of conversations without a reply.
        input_tokens: Number of input tokens.
        output_tokens: Number of output tokens.
        cost: Cost of input and output, at the configured prices.
    """

    requests: int = 0
    retries: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0

    def __str__(self) -> str:
        """Return the usage in one line."""
        again = f" ({self.retries} retries)" if self.retries else ""
        lost = f", {self.failures} without reply" if self.failures else ""
        cost = f", cost {self.cost:.4f}" if self.cost else ""
        return (
            f"{self.requests:,} requests{again}{lost}, {self.input_tokens:,} tokens read, "
            f"{self.output_tokens:,} written{cost}"
        )

    def figures(self) -> dict[str, float]:
        """Return all figures by name."""
        return {name: float(value) for name, value in asdict(self).items()}


class Meter:
    """Rate limiter and usage counter of a server; thread-safe.

    Args:
        endpoint: Limits and prices.
        sleep: Coroutine function that waits.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.usage = Usage()
        self._endpoint = endpoint
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: deque[list[float]] = deque()  # requests of the last minute: time and tokens

    async def enter(self, expected_tokens: float) -> list[float]:
        """Wait until one more request is within the limits; return the entry for `leave`."""
        while True:
            with self._lock:
                wait = self._wait(expected_tokens)
                if wait <= 0.0:
                    entry = [self._clock(), expected_tokens]
                    self._asked.append(entry)
                    self.usage.requests += 1
                    return entry
            await self._sleep(wait)

    def leave(self, entry: list[float], *, read: int, written: int) -> None:
        """Record the actual token counts of a request."""
        prices = self._endpoint.price_input, self._endpoint.price_output
        with self._lock:
            entry[1] = float(read + written)
            self.usage.input_tokens += read
            self.usage.output_tokens += written
            self.usage.cost += (read * prices[0] + written * prices[1]) / _MILLION

    def count(self, *, retries: int = 0, failures: int = 0) -> None:
        """Count retries and failures."""
        with self._lock:
            self.usage.retries += retries
            self.usage.failures += failures

    def _wait(self, tokens: float) -> float:
        """Return the seconds until a request with ``tokens`` can be sent, 0.0 for now.

        A request that exceeds the limit by itself is sent when there is no other in the minute.
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
