"""The environment benchmark: our vector environment and Gymnasium's two, in one run.

Each trial has its own process and is not affected by leftovers of another; figures of the same
round are compared.
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
"""Assumed memory of a process environment with its own sandbox, a safe upper estimate."""


class TrialError(Exception):
    """A vector environment failed its trial."""


@dataclass(frozen=True, slots=True)
class EnvsReport:
    """Results of one run.

    Attributes:
        machine: Machine of the run.
        load_before: Load of the machine at the start.
        load_after: Load of the machine at the end.
        rounds: Number of rounds.
        seed: Random seed of the tasks and of the order within rounds.
        counts: Numbers of members.
        trials: Trials by kind and count, one per round.
        missing: Kinds that did not take part, each with the reason.
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
        """Return the median over rounds; None if it was not measured."""
        values = [getattr(trial, figure) for trial in self.trials.get((kind, count), ())]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def ratio(self, count: int, figure: Figure, *, to: str = ASYNC) -> float | None:
        """Return the median over rounds of the ratio of ours to another; None if one is missing."""
        ours, theirs = (self.trials.get((kind, count), []) for kind in (OURS, to))
        pairs = zip(ours, theirs, strict=False)  # a kind without enough memory has no trials
        found = [(getattr(mine, figure), getattr(other, figure)) for mine, other in pairs]
        known = [mine / other for mine, other in found if mine is not None and other]
        return statistics.median(known) if known else None


@dataclass
class EnvsBench:
    """The benchmark, ready to run.

    Args:
        rounds: Number of rounds.
        counts: Numbers of members of the vector environments.
        seed: Random seed of the tasks and of the order within rounds.
        on_progress: Called with the name of the current measurement.
    """

    rounds: int = 3
    counts: Sequence[int] = COUNTS
    seed: int = 0
    on_progress: Callable[[str], None] = lambda _: None
    _missing: dict[str, str] = field(default_factory=dict[str, str], init=False)

    def run(self) -> EnvsReport:
        """Measure everything, kinds taking turns within a round.

        Raises:
            TrialError: A trial failed, or two kinds produced different trajectories.
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
                    raise TrialError(f"{count} members produced different trajectories: {digests}")
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
        """Whether the processes fit the machine's memory; recorded in the report if not."""
        needed, room = count * _MB_A_PROCESS, _SHARE_OF_MEMORY * available_mb()
        if kind != ASYNC or needed <= room:
            return True
        self._missing[f"{count} of {kind}"] = (
            f"about {needed / 1024:.0f} GB for its processes, {room / 1024:.0f} GB available"
        )
        return False


def steps_of(count: int) -> int:
    """Return the number of steps of the vector environment: whole episodes, at least two."""
    episodes = max(2, _STEPS_OF_MEMBERS // count // len(TURNS))
    return episodes * len(TURNS)


def _trial(kind: str, count: int, seed: int) -> Trial:
    command = [sys.executable, "-m", "benchmarks.measuring.env_trial", kind]
    command += [str(number) for number in (count, steps_of(count), seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no error output"])[-1]
        raise TrialError(f"{count} of {kind} failed with status {done.returncode}: {last}")
    return Trial(**json.loads(done.stdout.splitlines()[-1]))
