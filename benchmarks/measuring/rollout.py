"""The generation benchmark: our engine against generate, our GRPO step against TRL's."""

from __future__ import annotations

import contextlib
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from codedance.envs.types import Task
from codedance.pipelines.runs.machine import Machine, describe_machine, load
from codedance.policies.loading import NANO_FOLDER

from .episodes import MAX_NEW_TOKENS, PausingSandbox, Played, bench_tasks
from .generators import OurEngine, PlainGenerate
from .our_step import OurStep
from .peers import Missing
from .trl_peer import TRLTrainer


class Player(Protocol):
    """Contestant that plays episodes, and may train on them."""

    @property
    def name(self) -> str:
        """Name in the table."""
        ...

    def play(self, tasks: Sequence[Task], samples: int, seed: int) -> Played:
        """Play ``samples`` episodes per task."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """Players that do the same work, the first one ours.

    Attributes:
        title: Name of the work.
        rate: ``tokens`` or ``trajectories``, the unit counted per second.
        rounds: Measurements by player, one per round.
    """

    title: str
    rate: str
    rounds: dict[str, list[Played]] = field(default_factory=dict[str, list[Played]])

    def speed(self, name: str) -> float:
        """Return the median rate of a player."""
        return statistics.median(map(self._rate, self.rounds[name]))

    def ratio(self, name: str) -> float:
        """Return the median over rounds of the speedup of ours over ``name``."""
        ours = next(iter(self.rounds.values()))
        pairs = zip(ours, self.rounds[name], strict=True)
        return statistics.median(self._rate(mine) / self._rate(other) for mine, other in pairs)

    def _rate(self, played: Played) -> float:
        return getattr(played, self.rate) / played.seconds


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """Results of one run.

    Attributes:
        machine: Machine of the run.
        threads: Number of torch threads.
        load_before: Load of the machine at the start.
        load_after: Load of the machine at the end.
        model: Folder of the model.
        pause_seconds: Duration of a tool call.
        rounds: Number of measured rounds, after one to warm up.
        groups: Generation, then complete steps.
        missing: Contestants that did not take part, each with how to install it.
    """

    machine: Machine
    threads: int
    load_before: float
    load_after: float
    model: str
    pause_seconds: float
    rounds: int
    groups: tuple[Group, ...]
    missing: dict[str, str]


@dataclass
class RolloutBench:
    """The benchmark, ready to run.

    Args:
        model: Folder of a trained nano model; None for the bundled one.
        rounds: Number of rounds.
        tasks: Number of different tasks.
        samples: Trajectories per task.
        pause_seconds: Duration of a tool call.
        seed: Random seed of the order within rounds and of all sampling.
        on_progress: Called with the name of the current measurement.
    """

    model: str | None = None
    rounds: int = 5
    tasks: int = 8
    samples: int = 8
    pause_seconds: float = 0.05
    seed: int = 0
    on_progress: Callable[[str], None] = lambda _: None
    _missing: dict[str, str] = field(default_factory=dict[str, str], init=False)

    def run(self) -> RolloutReport:
        """Measure everything, players taking turns within a round.

        Raises:
            ValueError: There is no trained model in the folder.
        """
        load_before, source = load(), model_folder(self.model)
        sandbox = PausingSandbox(self.pause_seconds)
        tasks = bench_tasks(self.tasks)
        engines: list[Player] = [
            OurEngine(source, sandbox),
            OurEngine(source, sandbox, deterministic=False),
            PlainGenerate(source, sandbox),
        ]
        steps: list[Player] = [OurStep(source, sandbox)]
        with contextlib.ExitStack() as stack:
            try:
                steps.append(stack.enter_context(contextlib.closing(TRLTrainer(source, sandbox))))
            except Missing as missing:
                self._missing[TRLTrainer.name] = str(missing)
            groups = (
                self._measure(Group("generation", "tokens"), engines, tasks),
                self._measure(Group("generation and update", "trajectories"), steps, tasks),
            )
        return RolloutReport(
            machine=describe_machine(),
            threads=torch.get_num_threads(),
            load_before=load_before,
            load_after=load(),
            model=source,
            pause_seconds=self.pause_seconds,
            rounds=self.rounds,
            groups=groups,
            missing=self._missing,
        )

    def _measure(self, group: Group, players: Sequence[Player], tasks: Sequence[Task]) -> Group:
        order = random.Random(self.seed)
        group.rounds.update({player.name: [] for player in players})
        for number in range(self.rounds + 1):
            for player in order.sample(players, len(players)):
                self.on_progress(f"{group.title}, round {number} of {self.rounds}: {player.name}")
                played = player.play(tasks, self.samples, self.seed + number)
                if number:
                    group.rounds[player.name].append(played)
        return group


def model_folder(name: str | None) -> str:
    """Return the folder of the model that a benchmark uses.

    Raises:
        ValueError: There is no trained model; a random one writes no programs to measure.
    """
    folder = NANO_FOLDER if name is None else Path(name)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"no trained model in {folder}; set one with --model, such as the grpo checkpoint "
            "that `codedance run` prints"
        )
    return str(folder)


def work_line(report: RolloutReport) -> str:
    """Return a description of the work."""
    played = next(iter(report.groups[0].rounds.values()))[0]
    return (
        f"{played.trajectories} trajectories per round, about {played.tokens:,} tokens generated "
        f"by the policy, at most {MAX_NEW_TOKENS} per turn; a tool call takes "
        f"{1e3 * report.pause_seconds:.0f} ms"
    )
