"""Memory over the turns of a soak test: whether it is flat once everything has been used once."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

FLAT_MB = 10.0
"""Allowed growth from the second to the last quarter: 0.2 KB per turn over 100,000 turns."""

_SAMPLES = 80


class MemoryCurve:
    """Samples of the memory of processes, at equal distances in turns.

    Args:
        turns: Number of turns of the whole test.
    """

    def __init__(self, turns: int) -> None:
        self._turns = turns
        self._every = max(1, turns // _SAMPLES)
        self._samples: dict[str, list[tuple[int, float]]] = {}

    def is_due(self, turn: int) -> bool:
        """Return whether a sample is taken after this turn."""
        return turn % self._every == 0

    def add(self, name: str, turn: int, megabytes: float) -> None:
        """Add a sample."""
        self._samples.setdefault(name, []).append((turn, megabytes))

    def growth(self, name: str) -> float | None:
        """Return the growth of the median from the second to the last quarter, in MB.

        None without three samples in each, which shows nothing.
        """
        quarters: tuple[list[float], ...] = ([], [], [], [])
        for turn, megabytes in self._samples.get(name, ()):
            quarters[min(3, 4 * turn // self._turns)].append(megabytes)
        if min(len(quarters[1]), len(quarters[3])) < 3:
            return None
        return statistics.median(quarters[3]) - statistics.median(quarters[1])

    def findings(self, *names: str) -> Iterator[str]:
        """Yield the processes whose memory is not known to be flat."""
        for name in names:
            growth = self.growth(name)
            if growth is None:
                yield f"memory of {name}: too few samples"
            elif growth > FLAT_MB:
                yield f"memory of {name}: {growth:.0f} MB more in the last quarter"


def anonymous_mb(process_id: int) -> float:
    """Return a process's resident memory without files, in MB.

    Raises:
        OSError: The process is gone.
        StopIteration: It is ending.
    """
    lines = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon:"))) / 1024
