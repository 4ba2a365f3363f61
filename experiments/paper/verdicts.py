"""Whether a claim holds: paired differences within seeds, Student's interval over the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from .figures import MODES, Figures, gap
from .protocol import Claim, Protocol

Verdict = Literal["holds", "does not hold", "not shown", "not yet decided"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds.

    Attributes:
        count: Number of seeds.
        mean: Mean of their means; NaN without any.
        low: Lower end of Student's interval; NaN with fewer than two seeds.
        high: Upper end of Student's interval; NaN with fewer than two seeds.
        p: P-value of the one-sided paired t-test against the bound; NaN with fewer than two.
    """

    count: int
    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a claim.

    Attributes:
        against: Object of the comparison: the second arm, a family, or nothing.
        interval: Interval in the claim's mode.
        other: Interval in the other mode.
        better: Number of tasks, over all seeds, on which the first arm is above.
        worse: Number of tasks, over all seeds, on which the first arm is below.
        verdict: Verdict of this line alone.
    """

    against: str
    interval: Interval
    other: Interval
    better: int
    worse: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """A claim and its result."""

    claim: Claim
    verdict: Verdict
    findings: tuple[Finding, ...]


def student(values: Sequence[float], *, confidence: float, above: float = 0.0) -> Interval:
    """Return the mean of the seeds' values with Student's two-sided interval.

    >>> found = student([1.0, 2.0, 3.0], confidence=0.95)
    >>> round(found.low, 3), round(found.high, 3)
    (-0.484, 4.484)
    """
    known = [value for value in values if math.isfinite(value)]
    count = len(known)
    mean = float(np.mean(known)) if known else math.nan
    if count < 2:
        return Interval(count, mean, math.nan, math.nan, math.nan)
    error = float(np.std(known, ddof=1)) / math.sqrt(count)
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * error
    if error == 0.0:
        return Interval(count, mean, mean, mean, 0.0 if mean > above else 1.0)
    p = float(stdtr(count - 1, (above - mean) / error))
    return Interval(count, mean, mean - half, mean + half, p)


def decide(interval: Interval, *, above: float, planned: int) -> Verdict:
    """Return the verdict of an interval on a claim that needs more than ``above``."""
    if interval.count < planned:
        return "not yet decided"
    if interval.low > above:
        return "holds"
    return "does not hold" if interval.high <= above else "not shown"


def judge_claim(claim: Claim, protocol: Protocol, figures: Figures) -> Judgement:
    """Test a claim about metrics; emergence is tested in `emergences`."""
    against = claim.second or ("",)
    if claim.kind == "any_family":
        level = 1 - (1 - protocol.confidence) / len(claim.tasks)
        findings = tuple(
            _finding(claim, protocol, figures, (claim.second[0], (family,), level))
            for family in claim.tasks
        )
        return Judgement(claim, _any(findings), findings)
    findings = tuple(
        _finding(claim, protocol, figures, (other, claim.tasks, protocol.confidence))
        for other in against
    )
    return Judgement(claim, _all(findings), findings)


Line = tuple[str, tuple[str, ...], float]
"""The second arm or nothing, the tasks, and the confidence."""


def _finding(claim: Claim, protocol: Protocol, figures: Figures, line: Line) -> Finding:
    second, wanted, confidence = line
    other_mode = next(mode for mode in MODES if mode != claim.mode)
    values, better, worse = _by_seed(claim, figures, second, wanted, mode=claim.mode)
    others, _, _ = _by_seed(claim, figures, second, wanted, mode=other_mode)
    interval = student(values, confidence=confidence, above=claim.above)
    return Finding(
        against=wanted[0] if claim.kind == "any_family" else second,
        interval=interval,
        other=student(others, confidence=confidence, above=claim.above),
        better=better,
        worse=worse,
        verdict=decide(interval, above=claim.above, planned=protocol.seeds),
    )


def _by_seed(
    claim: Claim, figures: Figures, second: str, wanted: Sequence[str], *, mode: str
) -> tuple[list[float], int, int]:
    values: list[float] = []
    better = worse = 0
    for seed in sorted({seed for arm, seed, _ in figures if arm == claim.first}):
        first = figures.get((claim.first, seed, mode))
        other = figures.get((second, seed, mode))
        if first is None or (second and other is None):
            continue
        if other is None:
            values.append(first.level(claim.metric, wanted))
            continue
        found = gap(first, other, claim.metric, wanted)
        values.append(found.mean)
        better, worse = better + found.better, worse + found.worse
    return values, better, worse


def _all(findings: Sequence[Finding]) -> Verdict:
    verdicts = [finding.verdict for finding in findings]
    for verdict in ("does not hold", "not yet decided", "not shown"):
        if verdict in verdicts:
            return verdict
    return "holds"


def _any(findings: Sequence[Finding]) -> Verdict:
    verdicts = [finding.verdict for finding in findings]
    for verdict in ("not yet decided", "holds", "not shown"):
        if verdict in verdicts:
            return verdict
    return "does not hold"
