"""What a check of a store found: what is wrong, and how much was looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MOST_TOLD = 1000
"""Findings kept; more are only counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: ``picture``, ``task``, ``trajectory``, ``run``, ``model``, ``database``.
        name: Digest, key, number or id.
        problem: What is wrong with it.
    """

    kind: str
    name: str
    problem: str


@dataclass(slots=True)
class Verdict:
    """What a check found.

    Attributes:
        checked: How many of each kind were looked at.
        findings: What is wrong, the first thousand.
        wrong: How much is wrong in all.
        unsealed: Trajectories from before digests were kept: nothing to hold them against.
        unknown: What else has no digest, since it is from before its kind had any, counted by kind:
            nothing to hold it against either. ``stages`` are finished ones that nothing says how
            many trajectories they had.
        unused: Pictures that no row names; `codedance store prune` removes them.
        seconds: How long it took.
    """

    checked: dict[str, int] = field(default_factory=dict[str, int])
    findings: list[Finding] = field(default_factory=list[Finding])
    wrong: int = 0
    unsealed: int = 0
    unknown: dict[str, int] = field(default_factory=dict[str, int])
    unused: int = 0
    seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.wrong == 0

    def count(self, kind: str, more: int = 1) -> int:
        """Note that more of a kind were looked at; return how many now."""
        self.checked[kind] = self.checked.get(kind, 0) + more
        return self.checked[kind]

    def note_unknown(self, kind: str) -> None:
        """Note that one of a kind has no digest."""
        self.unknown[kind] = self.unknown.get(kind, 0) + 1

    def add(self, kind: str, name: object, problem: str) -> None:
        """Note that something is wrong."""
        self.extend([Finding(kind, str(name), problem)])

    def extend(self, findings: Iterable[Finding]) -> None:
        """Note that several things are wrong."""
        for finding in findings:
            self.wrong += 1
            if len(self.findings) < MOST_TOLD:
                self.findings.append(finding)
