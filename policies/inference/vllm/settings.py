"""Settings and usage of vLLM servers."""

from __future__ import annotations

import threading
from dataclasses import dataclass

_COUNTED = ("requests", "retries", "failures", "prompt_tokens", "cached_tokens", "new_tokens")


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """How servers are used.

    Attributes:
        api_key: API key of all servers; empty where they need none.
        model: Name of the model, or of adapters, on the servers; None for their base model.
        timeout_seconds: Longest time per request.
        max_retries: Repetitions of a request that a server failed to answer.
        patience_seconds: Longest time that a request waits in all while servers are unreachable or
            paused, if one has answered before; the time of its generation does not count.
        seeds: Whether each reply is drawn with a seed of its own; set it to false on a CPU, where
            vLLM 0.32 dies if a seeded reply is interrupted.
        weight_version: Version of the weights that every token has to be sampled from; None for
            any.
    """

    api_key: str = ""
    model: str | None = None
    timeout_seconds: float = 600.0
    max_retries: int = 3
    patience_seconds: float = 300.0
    seeds: bool = True
    weight_version: str | None = None

    def __post_init__(self) -> None:
        """Reject limits that no request could keep."""
        if self.timeout_seconds <= 0.0 or self.max_retries < 0 or self.patience_seconds < 0.0:
            raise ValueError(
                "timeout_seconds must be above 0, max_retries and patience_seconds at least 0, got "
                f"{self.timeout_seconds}, {self.max_retries}, {self.patience_seconds}"
            )


@dataclass(slots=True)
class ServedName:
    """Name under which requests ask for the model, replaced while replies are in generation.

    Attributes:
        model: Name of the model, or of its newest adapters, on the servers; None for their base
            model.
    """

    model: str | None


class VllmUsage:
    """Counter of the use of servers, by name; thread-safe."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = dict.fromkeys(_COUNTED, 0)
        self._lock = threading.Lock()

    def count(self, **numbers: int) -> None:
        """Add to the counts: requests, retries, failures (lost replies) and tokens."""
        with self._lock:
            for name, number in numbers.items():
                self._counts[name] += number

    def figures(self) -> dict[str, float]:
        """Return all counts, and the share of prompt tokens that were in a prefix cache."""
        with self._lock:
            found = {name: float(count) for name, count in self._counts.items()}
        share = found["cached_tokens"] / max(found["prompt_tokens"], 1.0)
        return found | {"cached_share": share}

    def restart(self) -> None:
        """Count anew."""
        with self._lock:
            self._counts = dict.fromkeys(_COUNTED, 0)

    def __str__(self) -> str:
        """Return the usage in one line."""
        figures = self.figures()
        again = f" ({figures['retries']:.0f} retries)" if figures["retries"] else ""
        lost = f", {figures['failures']:.0f} without reply" if figures["failures"] else ""
        return (
            f"{figures['requests']:,.0f} requests{again}{lost}, {figures['prompt_tokens']:,.0f} "
            f"tokens read ({figures['cached_share']:.0%} cached), {figures['new_tokens']:,.0f} "
            "written"
        )
