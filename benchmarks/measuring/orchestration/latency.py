"""Time that an engine needs for its requests, by a simple model, and the ideal of a whole rollout.

Assumptions for a 7-billion-parameter vision-language model in bfloat16 on one H100 (estimates, not
measurements): its 16.6 GB of weights are read once a decoding step, which takes 8 ms; each running
sequence adds 0.07 ms (about 230 MB of keys and values at 4,000 tokens); prompts are computed one
after another at 20,000 tokens/s, prefixes that were computed before cost nothing.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latency:
    """Speed of an engine.

    Attributes:
        prefill_tokens_per_second: New prompt tokens per second, all requests together.
        step_seconds: Seconds per decoding step without sequences.
        sequence_seconds: Additional seconds per decoding step and running sequence.
    """

    prefill_tokens_per_second: float = 20_000.0
    step_seconds: float = 0.008
    sequence_seconds: float = 0.00007


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply of the recording.

    Attributes:
        prefill: New prompt tokens before it.
        tokens: Tokens that the engine writes.
    """

    prefill: int
    tokens: int


class EngineClock:
    """Requests in an engine, and when each is finished; time is given by the caller.

    Prompts wait in a queue; then all sequences are decoded together, each at one token per step,
    and a step is the longer the more of them there are.

    Args:
        latency: Speed of the engine.
        now: Time of the start, in seconds.
    """

    def __init__(self, latency: Latency, now: float = 0.0) -> None:
        self._latency = latency
        self._now = now
        self._steps = 0.0  # decoding steps so far
        self._prefill: deque[tuple[float, int, Hashable]] = deque()  # end, tokens, key
        self._running: list[tuple[float, int, Hashable]] = []  # by the step of the last token
        self._numbers = itertools.count()

    def submit(self, key: Hashable, turn: Turn, now: float) -> None:
        """Add a request; `advance` has been called up to ``now``."""
        begin = max(now, self._prefill[-1][0] if self._prefill else now)
        end = begin + turn.prefill / self._latency.prefill_tokens_per_second
        self._prefill.append((end, turn.tokens, key))

    @property
    def next_event(self) -> float | None:
        """Time of the next event if no request comes; None if there are no requests."""
        times = [self._prefill[0][0]] if self._prefill else []
        if self._running:
            times.append(self._now + (self._running[0][0] - self._steps) * self._step)
        return min(times) if times else None

    @property
    def _step(self) -> float:
        return self._latency.step_seconds + self._latency.sequence_seconds * len(self._running)

    def advance(self, now: float) -> list[Hashable]:
        """Let time pass; return the keys of the requests that are finished."""
        finished: list[Hashable] = []
        while (event := self.next_event) is not None and event <= now:
            if self._prefill and self._prefill[0][0] <= event:
                self._pass(event)
                _, tokens, key = self._prefill.popleft()
                last = self._steps + tokens
                heapq.heappush(self._running, (last, next(self._numbers), key))
            else:
                self._steps = self._running[0][0]
                self._now = event
                finished.append(heapq.heappop(self._running)[2])
        self._pass(now)
        return finished

    def _pass(self, now: float) -> None:
        if self._running:
            self._steps += (now - self._now) / self._step
        self._now = max(now, self._now)


def ideal_seconds(
    episodes: Sequence[Sequence[Turn]], latency: Latency, *, tool_seconds: float
) -> float:
    """Return the time of a rollout that costs nothing but the engine and the tools.

    All episodes begin at once; between two turns of an episode a tool runs, however many others do.

    Args:
        episodes: Turns of each episode.
        latency: Speed of the engine.
        tool_seconds: Duration of a tool call.
    """
    clock = EngineClock(latency)
    waiting: list[tuple[float, int, int]] = [(0.0, one, 0) for one in range(len(episodes))]
    now = 0.0
    while True:
        event = clock.next_event
        if waiting and (event is None or waiting[0][0] <= event):
            now, one, turn = heapq.heappop(waiting)
            for key in clock.advance(now):
                _go_on(waiting, episodes, key, now + tool_seconds)
            clock.submit((one, turn), episodes[one][turn], now)
        elif event is not None:
            now = event
            for key in clock.advance(now):
                _go_on(waiting, episodes, key, now + tool_seconds)
        else:
            return now


def _go_on(
    waiting: list[tuple[float, int, int]],
    episodes: Sequence[Sequence[Turn]],
    key: Hashable,
    begin: float,
) -> None:
    one, turn = key  # pyright: ignore[reportGeneralTypeIssues]
    if turn + 1 < len(episodes[one]):
        heapq.heappush(waiting, (begin, one, turn + 1))
