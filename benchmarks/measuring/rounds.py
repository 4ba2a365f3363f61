"""Measures contestants on rows of work in interleaved rounds: medians and paired ratios."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work.

    Attributes:
        name: Name in the table's header.
        baseline: Contestant that ratios refer to.
        repeats: Repetitions per round; the round's time is their median.
    """

    name: str
    baseline: str
    repeats: int = 1


class Contestant(Protocol):
    """Contestant that does the work."""

    @property
    def name(self) -> str:
        """Name in the table."""
        ...

    @property
    def stride(self) -> int:
        """It takes part in every ``stride``-th round: 1, or more if it is slow."""
        ...

    def work(self, row: str) -> Callable[[], None] | None:
        """Return a function that does a row's work once; None if the row does not apply."""
        ...

    def close(self) -> None:
        """Close all that it runs."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds by contestant and row, one value per round (None: did not take part).

    Attributes:
        rows: Rows, in order.
        seconds: One list per contestant and row, with one value per round.
    """

    rows: tuple[Row, ...]
    seconds: Mapping[tuple[str, str], Sequence[float | None]] = field(
        default_factory=dict[tuple[str, str], list[float | None]]
    )

    @property
    def names(self) -> list[str]:
        """Names of the contestants, in order."""
        return list(dict.fromkeys(name for name, _ in self.seconds))

    def median(self, name: str, row: str) -> float | None:
        """Return the median seconds; None if nothing was measured."""
        values = [value for value in self.seconds.get((name, row), ()) if value is not None]
        return statistics.median(values) if values else None

    def ratio(self, name: str, row: str, baseline: str) -> float | None:
        """Return the median over rounds of the ratio to ``baseline`` in the same round."""
        ours, theirs = self.seconds.get((name, row), ()), self.seconds.get((baseline, row), ())
        pairs = [
            mine / other
            for mine, other in zip(ours, theirs, strict=False)
            if mine is not None and other
        ]
        return statistics.median(pairs) if pairs else None


def run_rounds(
    contestants: Sequence[Contestant],
    rows: Sequence[Row],
    *,
    rounds: int,
    seed: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Result:
    """Measure all contestants on all rows; a first, unmeasured round warms them up.

    Args:
        contestants: Contestants to measure.
        rows: Work that each does.
        rounds: Number of rounds.
        seed: Random seed of the order within a round.
        on_progress: Called with the number of finished rounds.
    """
    order = random.Random(seed)
    seconds: dict[tuple[str, str], list[float | None]] = {
        (each.name, row.name): [] for each in contestants for row in rows
    }
    for number in range(-1, rounds):
        takes_part = [each for each in contestants if number % each.stride == 0 or number < 0]
        measured: dict[tuple[str, str], float] = {}
        for row in rows:
            for each in order.sample(takes_part, len(takes_part)):
                work = each.work(row.name)
                if work is not None:
                    measured[each.name, row.name] = _median_seconds(work, row.repeats)
        if number >= 0:
            for key, values in seconds.items():
                values.append(measured.get(key))
            on_progress(number + 1)
    return Result(tuple(rows), seconds)


def _median_seconds(work: Callable[[], None], repeats: int) -> float:
    times: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
