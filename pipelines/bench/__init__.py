"""Benchmarks: contestants side by side in one run, compared by ratios.

Machines differ and are shared, so no figure stands alone: contestants take turns within a round,
their order drawn anew each time, and what counts is the median over rounds of the ratio to the
baseline of the same round.
"""

from .rounds import Contestant, Result, Row, run_rounds
from .sandbox import SandboxBench, SandboxReport

__all__ = [
    "Contestant",
    "Result",
    "Row",
    "SandboxBench",
    "SandboxReport",
    "run_rounds",
]
