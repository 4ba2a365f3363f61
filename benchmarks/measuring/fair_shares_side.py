"""How long a neighbour of spinning sessions waits, in one version of the sandbox, as JSON.

``python -m benchmarks.measuring.fair_shares_side SPINNING SECONDS FILE ROOT`` measures the version
whose rooms lie in ``ROOT``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import codedance.sandbox
from codedance.sandbox import Limits, open_sandbox
from codedance.sandbox.types import Sandbox

_HEAD_START_SECONDS = 0.5


def measure(spinning: int, seconds: float) -> dict[str, float]:
    """Run ``print(1)`` again and again beside sessions that spin until their time is up.

    Returns:
        Longest and median wait of a turn, in seconds, the number of turns, and the number of
        spinning blocks that ended by their own time limit.
    """
    limits = Limits(wall_seconds=seconds, cpu_seconds=seconds, memory_mb=256)
    waits: list[float] = []
    with (
        open_sandbox("local", limits=limits, libraries=()) as sandbox,
        sandbox.session() as neighbour,
        ThreadPoolExecutor(spinning) as threads,
    ):
        neighbour.run("print(1)")
        ends = [threads.submit(_spin, sandbox) for _ in range(spinning)]
        time.sleep(_HEAD_START_SECONDS)
        while not all(end.done() for end in ends):
            started = time.monotonic()
            neighbour.run("print(1)")
            waits.append(time.monotonic() - started)
        own = sum(end.result() == "timeout" for end in ends)
    return {
        "longest": max(waits),
        "median": statistics.median(waits),
        "turns": len(waits),
        "own": own,
    }


def _spin(sandbox: Sandbox) -> str:
    with sandbox.session() as session:
        return str(session.run("while True: pass").outcome)


def main(spinning: str, seconds: str, file: str, root: str) -> None:
    """Measure, and write the figures.

    Raises:
        RuntimeError: Another version than that of ``root`` was imported.
    """
    imported = Path(codedance.sandbox.__file__).resolve()
    if not imported.is_relative_to(Path(root).resolve()):
        raise RuntimeError(f"expected the sandbox of {root}, got {imported}")
    figures = measure(int(spinning), float(seconds))
    Path(file).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
