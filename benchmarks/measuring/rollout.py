"""The generation benchmark: our engine beside generate, our GRPO step beside TRL's."""

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
    """What plays episodes, and perhaps learns from them."""

    @property
    def name(self) -> str:
        """As the table shows it."""
        ...

    def play(self, tasks: Sequence[Task], samples: int, seed: int) -> Played:
        """Play ``samples`` episodes a task."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """Players that do the same work, the first one ours.

    Attributes:
        title: What they do.
        rate: ``tokens`` or ``trajectories``: what is counted a second.
        rounds: What each played, by name, one value a round.
    """

    title: str
    rate: str
    rounds: dict[str, list[Played]] = field(default_factory=dict[str, list[Played]])

    def speed(self, name: str) -> float:
        """Return the median rate of a player."""
        return statistics.median(map(self._rate, self.rounds[name]))

    def ratio(self, name: str) -> float:
        """Return the median over rounds of how many times as fast as ``name`` ours is."""
        ours = next(iter(self.rounds.values()))
        pairs = zip(ours, self.rounds[name], strict=True)
        return statistics.median(self._rate(mine) / self._rate(other) for mine, other in pairs)

    def _rate(self, played: Played) -> float:
        return getattr(played, self.rate) / played.seconds


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """What one run measured.

    Attributes:
        machine: Where.
        threads: Of torch.
        load_before: Of the machine at the start.
        load_after: At the end.
        model: Folder of the model.
        pause_seconds: Of a tool call.
        rounds: How often everything was measured, after one to warm up.
        groups: Generation, then whole steps.
        missing: What did not take part, and how to get it.
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
        model: Folder of a trained nano model; None for the one that the package ships.
        rounds: How often everything is measured.
        tasks: Different tasks.
        samples: Trajectories a task.
        pause_seconds: What a tool call takes.
        seed: Of the order within rounds and of all sampling.
        on_progress: Called with what is being done.
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
            ValueError: There is no trained model.
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
        ValueError: There is none: a random model writes no programs and would measure nothing.
    """
    folder = NANO_FOLDER if name is None else Path(name)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"no trained model in {folder}; give one with --model, such as the grpo checkpoint "
            "that `codedance run` prints"
        )
    return str(folder)


def work_line(report: RolloutReport) -> str:
    """Say in words what was done."""
    played = next(iter(report.groups[0].rounds.values()))[0]
    return (
        f"{played.trajectories} trajectories a round, about {played.tokens:,} tokens of the "
        f"policy's own, at most {MAX_NEW_TOKENS} a turn; a tool call takes "
        f"{1e3 * report.pause_seconds:.0f} ms"
    )
