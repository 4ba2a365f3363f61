"""Takes contestants through rows of work in interleaved rounds; gives medians and paired ratios."""

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
        name: As the table's head shows it.
        baseline: The contestant that ratios are taken to.
        repeats: How often it is done in a round; the round's time is their median.
    """

    name: str
    baseline: str
    repeats: int = 1


class Contestant(Protocol):
    """What does the work."""

    @property
    def name(self) -> str:
        """As the table shows it."""
        ...

    @property
    def stride(self) -> int:
        """It takes part in one round out of so many: 1, or more if it is slow."""
        ...

    def work(self, row: str) -> Callable[[], None] | None:
        """Return what does a row's work once; None where it has no such thing."""
        ...

    def close(self) -> None:
        """End what it runs."""
        ...


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured: seconds by contestant and row, a value a round (None: did not take part).

    Attributes:
        rows: In order.
        seconds: One list a contestant and row, as long as there were rounds.
    """

    rows: tuple[Row, ...]
    seconds: Mapping[tuple[str, str], Sequence[float | None]] = field(
        default_factory=dict[tuple[str, str], list[float | None]]
    )

    @property
    def names(self) -> list[str]:
        """Contestants, in order."""
        return list(dict.fromkeys(name for name, _ in self.seconds))

    def median(self, name: str, row: str) -> float | None:
        """Return the median seconds; None where nothing was measured."""
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
        contestants: What takes part.
        rows: What each does.
        rounds: How often.
        seed: Of the order within a round.
        on_progress: Called with the number of rounds done.
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
