"""Kernels of distributions: which isolation stands on each, and what it does not hold."""

from __future__ import annotations

from dataclasses import dataclass

from codedance.pipelines.charts.markdown_table import markdown_table

_FIRST_PIDFD = (5, 3)
_FIRST_OF_ABI = {1: (5, 13), 2: (5, 19), 3: (6, 2), 4: (6, 7), 5: (6, 10), 6: (6, 12), 7: (6, 15)}
"""Version of Linux that brought each version of landlock."""

HEADINGS = (
    "distribution",
    "Linux",
    "landlock",
    "`full`",
    "`confined`",
    "not held by the best level",
)

NEVER = "processor load, timing, and which library files were read before, as signals to siblings"
"""Not held at any level; see the threat model."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution's kernel.

    Attributes:
        name: Distribution.
        linux: Version of Linux that its kernel is based on.
        abi: Version of landlock where the distribution added one; None for that of ``linux``.
        namespaces: Who may create user namespaces: ``all``, or ``profile`` for programs with an
            AppArmor profile.
        note: What was not verified.
    """

    name: str
    linux: str
    abi: int | None = None
    namespaces: str = "all"
    note: str = ""

    @property
    def version(self) -> tuple[int, ...]:
        """Version of Linux as numbers."""
        return tuple(map(int, self.linux.split(".")))

    @property
    def landlock(self) -> int:
        """Version of landlock; 0 for none."""
        if self.abi is not None:
            return self.abi
        return max(
            (abi for abi, first in _FIRST_OF_ABI.items() if first <= self.version), default=0
        )

    @property
    def full(self) -> str:
        """Whether level ``full`` stands."""
        if self.version < _FIRST_PIDFD:
            return "refused: no handles of processes"
        without = "" if self.landlock else ", without landlock"
        if self.namespaces == "profile":
            return f"with the AppArmor profile of `codedance doctor`{without}"
        return f"stands{without}"

    @property
    def confined(self) -> str:
        """Whether level ``confined`` stands, and what it lacks there."""
        if self.version < _FIRST_PIDFD:
            return "refused: no handles of processes"
        if not self.landlock:
            return "refused: no landlock"
        lacks = ["no file moves between folders"] if self.landlock < 2 else []
        lacks += ["none is truncated by name"] if self.landlock < 3 else []
        return "stands" + (f"; {', '.join(lacks)}" if lacks else "")

    @property
    def not_held(self) -> str:
        """What the best level does not hold."""
        if self.version < _FIRST_PIDFD:
            return "no sandbox opens"
        if self.namespaces == "profile":
            return f"{NEVER}; without the profile also what `confined` shows (names, sizes)"
        return NEVER


DISTRIBUTIONS = (
    Distribution("Debian 11", "5.10"),
    Distribution("Debian 12", "6.1"),
    Distribution("Debian 13", "6.12"),
    Distribution("Ubuntu 20.04", "5.4"),
    Distribution("Ubuntu 20.04, newer kernel", "5.15"),
    Distribution("Ubuntu 22.04", "5.15"),
    Distribution("Ubuntu 22.04, newer kernel", "6.8"),
    Distribution("Ubuntu 24.04", "6.8", namespaces="profile"),
    Distribution("RHEL 8", "4.18", note="not run; its kernel may have handles of processes added"),
    Distribution("RHEL 9.0 to 9.5", "5.14", abi=0, note="not run; built without landlock"),
    Distribution(
        "RHEL 9.6 and later", "5.14", abi=5, note="not run; reports of 5 and of 6: as it answers"
    ),
    Distribution("RHEL 10", "6.12", note="not run; where landlock is switched on"),
)


def kernels_table() -> list[str]:
    """Return the table of the docs, as lines of Markdown."""
    cells = [
        (
            one.name + (f" ({one.note})" if one.note else ""),
            one.linux,
            one.landlock or "none",
            one.full,
            one.confined,
            one.not_held,
        )
        for one in DISTRIBUTIONS
    ]
    return markdown_table(HEADINGS, cells)
