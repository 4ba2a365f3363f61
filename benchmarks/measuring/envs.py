"""The environments' benchmark: our vector environment beside Gymnasium's two, in one run.

Each trial has a process of its own, so that none finds what another left behind; what is compared
are figures of the same round.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from codedance.pipelines.runs.machine import Machine, describe_machine, load

from .env_trial import ASYNC, KINDS, OURS, TURNS, Trial
from .processes import available_mb

ROOT = Path(__file__).parents[2]
COUNTS = (1, 8, 64, 256)
Figure = Literal["first_step_seconds", "steps_a_second", "memory_mb", "left_mb"]

_STEPS_OF_MEMBERS = 640
_SHARE_OF_MEMORY = 0.6
_MB_A_PROCESS = 60.0
"""What a process environment with a sandbox of its own is taken to need, to be on the safe side."""


class TrialError(Exception):
    """A vector environment did not get through its trial."""


@dataclass(frozen=True, slots=True)
class EnvsReport:
    """What one run measured.

    Attributes:
        machine: Where.
        load_before: Of the machine at the start.
        load_after: At the end.
        rounds: How often everything was measured.
        seed: Of the tasks, and of the order within rounds.
        counts: Members.
        trials: By kind and count, one a round.
        missing: What did not take part, and why.
    """

    machine: Machine
    load_before: float
    load_after: float
    rounds: int
    seed: int
    counts: tuple[int, ...]
    trials: dict[tuple[str, int], list[Trial]]
    missing: dict[str, str]

    def median(self, kind: str, count: int, figure: Figure) -> float | None:
        """Return the median over rounds; None where it was not measured."""
        values = [getattr(trial, figure) for trial in self.trials.get((kind, count), ())]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def ratio(self, count: int, figure: Figure, *, to: str = ASYNC) -> float | None:
        """Return the median over rounds of ours divided by another's; None where one is missing."""
        ours, theirs = (self.trials.get((kind, count), []) for kind in (OURS, to))
        pairs = zip(ours, theirs, strict=False)  # a kind that had no room has none
        found = [(getattr(mine, figure), getattr(other, figure)) for mine, other in pairs]
        known = [mine / other for mine, other in found if mine is not None and other]
        return statistics.median(known) if known else None


@dataclass
class EnvsBench:
    """The benchmark, ready to run.

    Args:
        rounds: How often everything is measured.
        counts: Members of each vector environment.
        seed: Of the tasks, and of the order within rounds.
        on_progress: Called with what is being done.
    """

    rounds: int = 3
    counts: Sequence[int] = COUNTS
    seed: int = 0
    on_progress: Callable[[str], None] = lambda _: None
    _missing: dict[str, str] = field(default_factory=dict[str, str], init=False)

    def run(self) -> EnvsReport:
        """Measure everything, kinds taking turns within a round.

        Raises:
            TrialError: A trial failed, or two kinds gave different trajectories.
        """
        load_before, order = load(), random.Random(self.seed)
        trials: dict[tuple[str, int], list[Trial]] = {}
        for number in range(self.rounds):
            for count in self.counts:
                digests: dict[str, str] = {}
                for kind in order.sample(list(KINDS), len(KINDS)):
                    if self._has_room(kind, count):
                        self.on_progress(f"round {number + 1} of {self.rounds}: {count} of {kind}")
                        trial = _trial(kind, count, self.seed + number)
                        trials.setdefault((kind, count), []).append(trial)
                        digests[kind] = trial.digest
                if len(set(digests.values())) > 1:
                    raise TrialError(f"{count} members gave different trajectories: {digests}")
        return EnvsReport(
            machine=describe_machine(),
            load_before=load_before,
            load_after=load(),
            rounds=self.rounds,
            seed=self.seed,
            counts=tuple(self.counts),
            trials=trials,
            missing=self._missing,
        )

    def _has_room(self, kind: str, count: int) -> bool:
        """Whether so many processes fit the machine's memory; said in the report if not."""
        needed, room = count * _MB_A_PROCESS, _SHARE_OF_MEMORY * available_mb()
        if kind != ASYNC or needed <= room:
            return True
        self._missing[f"{count} of {kind}"] = (
            f"about {needed / 1024:.0f} GB for its processes, {room / 1024:.0f} GB to be had"
        )
        return False


def steps_of(count: int) -> int:
    """Return how many steps all members take together: whole episodes, at least two."""
    episodes = max(2, _STEPS_OF_MEMBERS // count // len(TURNS))
    return episodes * len(TURNS)


def _trial(kind: str, count: int, seed: int) -> Trial:
    command = [sys.executable, "-m", "benchmarks.measuring.env_trial", kind]
    command += [str(number) for number in (count, steps_of(count), seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise TrialError(f"{count} of {kind} failed with status {done.returncode}: {last}")
    return Trial(**json.loads(done.stdout.splitlines()[-1]))
