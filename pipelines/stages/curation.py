"""Rules of curation: which candidate tasks are kept, and how each is demonstrated.

Weak-to-strong filtering (arXiv 2512.17312, data section): a task that the weak policy always solves
teaches little, one that the strong policy never solves cannot be demonstrated; the weak policy's
pass rate decides the difficulty. Differences from the paper: a quota of trivial tasks is kept, so
that the policy sees when no tool is needed; demonstrations are imperfect on purpose, by shares.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...envs.types import Difficulty

Demonstration = Literal["direct", "tools"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate task with everything that the decision depends on.

    Attributes:
        key: Key of the task in the store.
        family: Family of the task.
        weak_rate: Pass rate of the weak policy's scored samples; None without scored samples.
        strong_rate: Pass rate of the strong policy's scored samples; None without scored samples.
        leak: Held-out task that it equals or nearly equals; None without one.
        duplicate: Earlier candidate that it equals or nearly equals; None without one.
        has_teacher: False where the strong policy cannot attempt the task (a user's own question):
            such a task is kept, and demonstrated directly.
    """

    key: str
    family: str
    weak_rate: float | None
    strong_rate: float | None
    leak: str | None = None
    duplicate: str | None = None
    has_teacher: bool = True


@dataclass(frozen=True, slots=True)
class Rules:
    """Thresholds of difficulty, quota of trivial tasks, and shares demonstrated with tools."""

    easy_above: float = 0.75
    hard_below: float = 0.25
    trivial_share: float = 0.25
    tool_shares: Mapping[Difficulty, float] | None = None

    def tool_share(self, difficulty: Difficulty) -> float:
        """Return the share of demonstrations with tools at a difficulty."""
        if self.tool_shares is None:
            return 0.0 if difficulty is Difficulty.EASY else 1.0
        return self.tool_shares[difficulty]


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on a candidate, with its reason.

    Attributes:
        key: Key of the candidate.
        is_kept: Whether the task is kept for training.
        reason: Reason of the decision, as text.
        difficulty: Difficulty by the weak policy's pass rate.
        demonstration: Kind of demonstration; None for a dropped task.
    """

    key: str
    is_kept: bool
    reason: str
    difficulty: Difficulty
    demonstration: Demonstration | None = None


def difficulty_of(weak_rate: float | None, rules: Rules) -> Difficulty:
    """Return the difficulty for a pass rate; an unknown rate counts as medium."""
    if weak_rate is None:
        return Difficulty.MEDIUM
    if weak_rate >= rules.easy_above:
        return Difficulty.EASY
    return Difficulty.HARD if weak_rate <= rules.hard_below else Difficulty.MEDIUM


def decide(candidates: Sequence[Candidate], rules: Rules, *, seed: int) -> list[Decision]:
    """Return the decision on every candidate, in order; deterministic for a seed."""
    faults = [_fault(candidate) for candidate in candidates]
    sound = [c for c, fault in zip(candidates, faults, strict=True) if fault is None]
    surplus = _surplus(sound, rules, seed)
    decisions: list[Decision] = []
    for candidate, fault in zip(candidates, faults, strict=True):
        difficulty = difficulty_of(candidate.weak_rate, rules)
        if fault is None and candidate.key in surplus:
            fault = "trivial: the weak policy is always right, and its quota is full"
        if fault is not None:
            decisions.append(Decision(candidate.key, False, fault, difficulty))
            continue
        demonstration = _demonstration(candidate, difficulty, rules, seed)
        reason = (
            f"kept: {difficulty}, shown {'with tools' if demonstration == 'tools' else 'directly'}"
        )
        decisions.append(Decision(candidate.key, True, reason, difficulty, demonstration))
    return decisions


def count_reasons(decisions: Sequence[Decision]) -> dict[str, int]:
    """Count decisions by the word before their reason's colon (kept, leak, trivial, …)."""
    return dict(Counter(decision.reason.split(":")[0] for decision in decisions))


def _fault(candidate: Candidate) -> str | None:
    if candidate.leak is not None:
        return f"leak: equals or nearly equals the held-out {candidate.leak}"
    if candidate.duplicate is not None:
        return f"duplicate: equals or nearly equals {candidate.duplicate}"
    if candidate.weak_rate is None or (candidate.has_teacher and candidate.strong_rate is None):
        return "unscored: infrastructure lost every sample"
    if candidate.has_teacher and candidate.strong_rate == 0.0:
        return "unsolvable: the strong policy is never right"
    return None


def _surplus(sound: Sequence[Candidate], rules: Rules, seed: int) -> set[str]:
    """Return the trivial tasks that exceed their share of the kept tasks."""
    trivial = [c.key for c in sound if c.weak_rate == 1.0]
    others = len(sound) - len(trivial)
    if rules.trivial_share >= 1.0:
        return set()
    allowed = int(rules.trivial_share / (1.0 - rules.trivial_share) * others)
    random.Random(seed).shuffle(trivial)
    return set(trivial[allowed:])


def _demonstration(
    candidate: Candidate, difficulty: Difficulty, rules: Rules, seed: int
) -> Demonstration:
    if not candidate.has_teacher:
        return "direct"
    draw = random.Random(f"{seed} {candidate.key}").random()
    return "tools" if draw < rules.tool_share(difficulty) else "direct"
