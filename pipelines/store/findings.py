"""Results of a check of a store: problems, and counts of what was checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MOST_TOLD = 1000
"""Largest number of findings that are kept; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that a check found.

    Attributes:
        kind: ``picture``, ``task``, ``trajectory``, ``run``, ``model``, ``database``.
        name: Digest, key, number or id of the thing.
        problem: Description of the problem.
    """

    kind: str
    name: str
    problem: str


@dataclass(slots=True)
class Verdict:
    """The results of a check.

    Attributes:
        checked: Number of things checked, by kind.
        findings: Problems, at most the first thousand.
        wrong: Number of all problems.
        unsealed: Number of trajectories without a digest, stored before digests were introduced:
            they cannot be checked.
        unknown: Number of other things without a digest for the same reason, by kind. ``stages``
            counts finished stages without a recorded number of trajectories.
        unused: Number of images that no row names; `codedance store prune` removes them.
        seconds: Duration of the check.
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
        """Count further checked things of a kind; return their number so far."""
        self.checked[kind] = self.checked.get(kind, 0) + more
        return self.checked[kind]

    def note_unknown(self, kind: str) -> None:
        """Count a thing of a kind that has no digest."""
        self.unknown[kind] = self.unknown.get(kind, 0) + 1

    def add(self, kind: str, name: object, problem: str) -> None:
        """Add a problem."""
        self.extend([Finding(kind, str(name), problem)])

    def extend(self, findings: Iterable[Finding]) -> None:
        """Add several problems."""
        for finding in findings:
            self.wrong += 1
            if len(self.findings) < MOST_TOLD:
                self.findings.append(finding)
