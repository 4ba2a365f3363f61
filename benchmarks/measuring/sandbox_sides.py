"""Two versions of the sandbox, each in processes of its own, in pairs of random order."""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .sandbox_side import BARE, ROWS
from .tables import Table

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("sandbox", "envs", "policies", "pipelines")
MOST = 1.03
"""Allowed median ratio of a cost whose interval does not reach 1."""

_RESAMPLES = 10_000

Seconds = Mapping[str, Mapping[str, float]]
"""Seconds by contestant and row."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One cost in both versions.

    Attributes:
        contestant: Isolation level, or bare ``exec``.
        row: Start, print or crop.
        before: Median seconds of the older version.
        after: Median seconds of the newer version.
        ratio: Median over pairs of after / before.
        low: Lower end of the 95 % bootstrap interval of the ratio.
        high: Its upper end.
        over_bare: Median over pairs of the newer version's time / bare ``exec``'s.
    """

    contestant: str
    row: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    over_bare: float

    @property
    def is_kept(self) -> bool:
        """Whether the newer version costs no more: its interval reaches 1, or it is small."""
        return self.low <= 1.0 or self.ratio < MOST


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Check a revision out into a temporary folder.

    Raises:
        CalledProcessError: There is no such revision, or no repository.
    """
    with tempfile.TemporaryDirectory(prefix="codedance-before-") as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def compare(
    before: Path,
    *,
    pairs: int,
    rounds: int,
    seed: int,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[tuple[Seconds, Seconds]]:
    """Measure the version in ``before`` and this one in pairs; return both measurements of each."""
    order = random.Random(seed)
    found: list[tuple[Seconds, Seconds]] = []
    with tempfile.TemporaryDirectory(prefix="codedance-sides-") as folder:
        for number in range(pairs):
            measured: dict[Path, Seconds] = {}
            for tree in order.sample((before, ROOT), 2):
                words = [str(rounds), str(seed + number)]
                measured[tree] = run_side("sandbox_side", tree, Path(folder), words)
            found.append((measured[before], measured[ROOT]))
            on_progress(f"pair {number + 1} of {pairs}")
    return found


def costs(pairs: Sequence[tuple[Seconds, Seconds]], seed: int) -> list[Cost]:
    """Return every cost that both versions have, with the ratios over pairs."""
    draws = np.random.default_rng(seed)
    found: list[Cost] = []
    for contestant in pairs[0][0]:
        for row in ROWS:
            if all(contestant in each for pair in pairs for each in pair):
                found.append(_cost(pairs, contestant, row.name, draws))
    return found


def cost_table(those: Sequence[Cost]) -> Table:
    """Return the costs as a table."""
    head = ("", "before", "after", "ratio", "95 % interval", "× bare", "")
    rows = tuple(
        (
            f"{each.contestant}: {each.row}",
            f"{each.before * 1e3:.3f}",
            f"{each.after * 1e3:.3f}",
            f"{each.ratio:.3f}",
            f"{each.low:.3f}–{each.high:.3f}",
            "" if each.contestant == BARE else f"{each.over_bare:.2f}",
            "" if each.contestant == BARE else ("kept" if each.is_kept else "dearer"),
        )
        for each in those
    )
    title = "milliseconds before and after, their ratio, and after / bare exec"
    return Table(title, head, rows)


def run_side(module: str, tree: Path, folder: Path, words: Sequence[str]) -> Any:  # noqa: ANN401
    """Run a module of `benchmarks.measuring` on a version, as a process of its own.

    Args:
        module: Name of the module; its arguments are ``words``, a file for its JSON and ``tree``.
        tree: Root of the version's rooms.
        folder: Folder for temporary files.
        words: Arguments before the file.

    Returns:
        The JSON document that it wrote.
    """
    package = folder / ("this" if tree == ROOT else "before")
    (package / "codedance").mkdir(parents=True, exist_ok=True)
    for room in ROOMS:
        with contextlib.suppress(FileExistsError):
            (package / "codedance" / room).symlink_to(tree / room)
    output = folder / "side.json"
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.measuring.{module}", *words, str(output), str(tree)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{package}:{ROOT}"},
        check=True,
    )
    return json.loads(output.read_text(encoding="utf-8"))


def _cost(
    pairs: Sequence[tuple[Seconds, Seconds]],
    contestant: str,
    row: str,
    draws: np.random.Generator,
) -> Cost:
    before = np.array([pair[0][contestant][row] for pair in pairs])
    after = np.array([pair[1][contestant][row] for pair in pairs])
    bare = np.array([pair[1][BARE][row] for pair in pairs])
    ratios = after / before
    drawn = draws.choice(ratios, (_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return Cost(
        contestant,
        row,
        statistics.median(before.tolist()),
        statistics.median(after.tolist()),
        statistics.median(ratios.tolist()),
        float(low),
        float(high),
        statistics.median((after / bare).tolist()),
    )
