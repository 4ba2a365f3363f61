"""Rounds of the orchestration benchmark: every contestant against an engine of its own.

Within a round the contestants take turns in random order; each plays in its own interpreter, in a
new process, whose clock runs from the first request to the end of the last episode.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from codedance.pipelines.runs.machine import Machine, describe_machine, load

from .latency import Latency, ideal_seconds
from .recording import TOOL_SECONDS, recorded

ROOT = Path(__file__).parents[3]
_PACKAGE = __package__ or "benchmarks.measuring.orchestration"
_LONGEST_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to roll out the recorded episodes.

    Attributes:
        name: Name in the table.
        package: Whose interpreter it needs.
        program: Module that plays, and its options.
        style: Format of the engine's replies.
        code_seconds: Seconds that the recorded code sleeps itself.
        differs: What it does otherwise than the others; empty for nothing.
    """

    name: str
    package: str
    program: tuple[str, ...]
    style: str = "call"
    code_seconds: float = TOOL_SECONDS
    differs: str = ""


CONTESTANTS = (
    Contestant(
        "ours",
        "ours",
        ("play_ours", "--tool", "remote"),
        "code",
        0.0,
        "the tool takes 200 ms elsewhere, then code runs in the real sandbox",
    ),
    Contestant(
        "ours, blocks that sleep",
        "ours",
        ("play_ours",),
        "code",
        differs="the sandbox runs as many blocks at the same time as there are cores",
    ),
    Contestant(
        "ours, chat completions",
        "ours",
        ("play_ours", "--tool", "remote", "--client", "openai"),
        "code",
        0.0,
        differs="messages instead of exact ids",
    ),
    Contestant(
        "ours, with evidence",
        "ours",
        ("play_ours", "--tool", "remote", "--evidence"),
        "code",
        0.0,
        differs="every block is run three times, as the presets `bat` need it",
    ),
    Contestant("verifiers", "verifiers", ("play_verifiers",), "call-tokens"),
    Contestant(
        "verl", "verl", ("play_verl",), differs="images to its engine (Ray) are not counted"
    ),
    Contestant(
        "TRL, GRPOTrainer",
        "trl",
        ("play_trl", "--client", "grpo"),
        differs="tools of a batch run one after another",
    ),
    Contestant(
        "TRL, AsyncGRPO",
        "trl",
        ("play_trl", "--client", "async"),
        differs="sends no images; its tool returns text",
    ),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One contestant in one round.

    Attributes:
        seconds: Wall time.
        processor_seconds: Processor time of the contestant, without the engine's.
        load: Load of the machine at the end, over the last minute.
    """

    seconds: float
    processor_seconds: float
    load: float


@dataclass(frozen=True, slots=True)
class Report:
    """Results of one run.

    Attributes:
        machine: Machine of the run.
        load_before: Load of the machine at the start.
        episodes: Episodes per trial.
        ideal_seconds: Time of the engine and the tools alone.
        versions: Version of each package.
        trials: One per round, by contestant.
        missing: Contestants that failed, each with the reason; their trials are left out.
    """

    machine: Machine
    load_before: float
    episodes: int
    ideal_seconds: float
    versions: Mapping[str, str]
    trials: dict[str, list[Trial]] = field(default_factory=dict[str, list[Trial]])
    missing: dict[str, str] = field(default_factory=dict[str, str])

    def median(self, name: str) -> Trial:
        """Return the trial with a contestant's median time."""
        trials = sorted(self.trials[name], key=lambda one: one.seconds)
        return trials[(len(trials) - 1) // 2] if len(trials) % 2 else _between(trials)

    def above(self, name: str) -> float:
        """Return the median time above the ideal, as a share of it."""
        return self.median(name).seconds / self.ideal_seconds - 1.0


def _between(trials: Sequence[Trial]) -> Trial:
    return Trial(
        statistics.median(one.seconds for one in trials),
        statistics.median(one.processor_seconds for one in trials),
        statistics.median(one.load for one in trials),
    )


def run_contest(
    contestants: Sequence[Contestant],
    pythons: Mapping[str, Path],
    *,
    rounds: int,
    episodes: int,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure the contestants in interleaved rounds.

    Args:
        contestants: Contestants.
        pythons: Interpreter of each package.
        rounds: Rounds.
        episodes: Episodes per trial, all at the same time.
        seed: Random seed of the order within a round.
        on_progress: Called with the name of the current measurement.

    Returns:
        The trials; a contestant that fails, or does not play the episodes as recorded, is left out
        from then on.
    """
    plan = [recorded(number) for number in range(episodes)]
    report = Report(
        machine=describe_machine(),
        load_before=load(),
        episodes=episodes,
        ideal_seconds=ideal_seconds(plan, Latency(), tool_seconds=TOOL_SECONDS),
        versions={name: version(name, python) for name, python in pythons.items()},
        trials={one.name: [] for one in contestants},
    )
    order = random.Random(seed)
    for number in range(1, rounds + 1):
        for one in order.sample(contestants, len(contestants)):
            if one.name in report.missing:
                continue
            on_progress(f"round {number} of {rounds}: {one.name}")
            try:
                report.trials[one.name].append(play(one, pythons[one.package], episodes))
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                report.missing[one.name] = str(error)
                del report.trials[one.name]
    return report


def play(one: Contestant, python: Path, episodes: int) -> Trial:
    """Start an engine, and let a contestant play against it.

    Raises:
        RuntimeError: The contestant failed; the message ends with what it printed.
    """
    with engine(one) as url:
        module, *options = one.program
        command = [str(python), "-m", f"{_PACKAGE}.{module}", url, "--episodes", str(episodes)]
        done = subprocess.run(
            [*command, *options],
            cwd=ROOT,
            env=_environment(one.package),
            capture_output=True,
            text=True,
            timeout=_LONGEST_SECONDS,
        )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{one.name} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return Trial(**json.loads(lines[-1]))


@contextmanager
def engine(one: Contestant) -> Generator[str]:
    """Run a fake engine in a process of its own; yield its address."""
    options = ["--style", one.style, "--seconds", str(one.code_seconds)]
    command = [sys.executable, "-m", f"{_PACKAGE}.fake_engine", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=_environment("ours"), stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip()
            if not port:
                raise RuntimeError("the fake engine ended before it printed its port")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def version(name: str, python: Path) -> str:
    """Return the version of a package and of its Python."""
    package = {"ours": "codedance"}.get(name, name)
    program = (
        "import sys\nfrom importlib.metadata import PackageNotFoundError, version\n"
        f"try: found = version({package!r})\nexcept PackageNotFoundError: found = 'checkout'\n"
        "print(found, 'Python', sys.version.split()[0])"
    )
    done = subprocess.run(
        [str(python), "-c", program], env=_environment(name), capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def _environment(package: str) -> dict[str, str]:
    """Return the environment of a contestant: this checkout, and ours for our own only."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CODEDANCE_")}
    path = [str(ROOT)]
    if package == "ours":
        path += [kept.get("PYTHONPATH", "")]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "true", "TRL_EXPERIMENTAL_SILENCE": "1"}
    quiet |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return kept | quiet | {"PYTHONPATH": os.pathsep.join(path)}
