"""Rows of the table: an isolation level, a version of landlock, and the user who runs the trainer.

``python -m sandbox.escapes rows abi=2 level=confined user=root`` makes the attempts of some rows.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codedance.sandbox import SandboxError
from codedance.sandbox.worker import landlock

from .judging import Verdict
from .patched import ABIS
from .places import judge_all, judge_as_nobody, open_arena

LEVELS = ("full", "confined")
USERS = ("root", "nobody")
HEADINGS = ("isolation", "landlock", "trainer's user", "attempts", "held", "escaped", "not here")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table, on this machine without a container.

    Attributes:
        level: Isolation level.
        abi: Version of landlock that the worker sees.
        user: ``root``, or ``nobody`` for one without rights.
    """

    level: str
    abi: int
    user: str

    @property
    def place(self) -> str:
        """Its name for `open_arena`."""
        return self.level if self.abi == landlock.abi() else f"{self.level}@{self.abi}"

    def judge(self) -> list[Verdict] | str:
        """Make every attempt; return why the level is refused, in words, where it is."""
        if self.level == "confined" and not self.abi:
            return _refusal(self.place)
        is_own_user = (os.geteuid() == 0) == (self.user == "root")
        return judge_all(self.place) if is_own_user else judge_as_nobody(self.place)


def rows(words: Sequence[str] = ()) -> list[Row]:
    """Return the rows that this machine can make, or those of them that ``words`` choose.

    Args:
        words: ``abi=``, ``level=`` and ``user=``, each with values and commas between them.

    Raises:
        ValueError: A word chooses nothing.
    """
    newest = landlock.abi()
    abis = (*(abi for abi in ABIS if abi < newest), newest)
    users = USERS if os.geteuid() == 0 else USERS[1:]
    known = {"abi": [str(abi) for abi in abis], "level": LEVELS, "user": users}
    chosen = {name: list(values) for name, values in known.items()}
    for word in words:
        name, _, values = word.partition("=")
        asked = values.replace(" ", ",").split(",")
        if name not in known or not set(asked) <= set(known[name]):
            shown = "; ".join(f"{key}={','.join(values)}" for key, values in known.items())
            raise ValueError(f"no rows {word!r} on this machine; there are {shown}")
        chosen[name] = asked
    return [
        Row(level, int(abi), user)
        for level in chosen["level"]
        for abi in chosen["abi"]
        for user in chosen["user"]
    ]


def judge_rows(chosen: Sequence[Row]) -> Iterator[tuple[tuple[object, ...], list[Verdict]]]:
    """Make the attempts of each row; yield its cells, and the verdicts that are not ``held``."""
    for row in chosen:
        found = row.judge()
        cells: tuple[object, ...] = (row.level, row.abi or "none", row.user)
        bad: list[Verdict] = []
        if isinstance(found, str):
            cells += ("refused", "", "", "")
        else:
            bad = [verdict for verdict in found if verdict.result in ("escaped", "broken")]
            absent = Counter(verdict.result for verdict in found)["not applicable"]
            cells += (len(found), len(found) - len(bad) - absent, len(bad), absent)
        sys.stdout.write(" | ".join(map(str, cells)) + "\n")
        sys.stdout.flush()
        yield cells, bad


def run_rows(words: Sequence[str]) -> None:
    """Make the attempts of the rows that ``words`` choose; exit with 1 if any was not held."""
    sys.stdout.write(" | ".join(HEADINGS) + "\n")
    bad = [verdict for _, verdicts in judge_rows(rows(words)) for verdict in verdicts]
    for verdict in bad:
        sys.stdout.write(f"{verdict}\n")
    sys.exit(bool(bad))


def _refusal(place: str) -> str:
    """Return the words of the refusal.

    Raises:
        RuntimeError: The level was not refused.
    """
    try:
        with open_arena(place):
            raise RuntimeError(f"{place} opened; it should be refused")
    except SandboxError as error:
        return str(error)
