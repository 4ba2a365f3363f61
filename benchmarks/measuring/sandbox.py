"""The sandbox benchmark: ours at each isolation level against alternatives, in one run."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from codedance.pipelines.runs.machine import Machine, describe_machine, load
from codedance.sandbox import Limits, SandboxError
from codedance.sandbox.capacity import core_count
from codedance.sandbox.docker.backend import container_plan, starter
from codedance.sandbox.docker.engine import DEFAULT_IMAGE
from codedance.sandbox.host.interpreter import ask_interpreter
from codedance.sandbox.host.zygote import ZygotePlan
from codedance.sandbox.local import LocalSandbox
from codedance.sandbox.types import DEFAULT_LIBRARIES
from codedance.sandbox.worker.layers import LAYERS
from PIL import Image

from .contestants import FreshPython, Stateful, bare_exec, our_sandbox
from .peers import DockerExec, Missing, jupyter
from .programs import EPISODES, input_picture
from .resources import KILLS, Crowd, IdleMemory, crowd, idle_memory, kill_seconds
from .rounds import Contestant, Result, Row, run_rounds

BARE = "bare exec"
NO_ISOLATION = "no isolation"
CONFINED = "confined"
FULL = "full"
DOCKER = "docker"
FORK = "fork only"
OURS = (NO_ISOLATION, CONFINED, FULL, DOCKER)

ROWS = (
    Row("start", NO_ISOLATION),
    Row("print", BARE, repeats=20),
    Row("crop", BARE),
    Row("figure", BARE),
    Row("cycle", NO_ISOLATION),
)
EPISODE_ROWS = (Row("light", BARE), Row("heavy", BARE))
LAYERED_ISOLATION = {
    FORK: "none",
    **{f"+ {layer}": f"layers:{layer}" for layer in LAYERS},
    "+ namespaces": FULL,
}
"""Isolation by the layer that it adds to the previous ones; the last is full isolation."""

LAYER_ROWS = (Row("start", FORK, repeats=4), Row("cycle", FORK, repeats=4))
_LIMITS = Limits(wall_seconds=60.0, cpu_seconds=60.0)
_MOST_KILLS = 5


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """Results of one run.

    Attributes:
        machine: Machine of the run.
        load_before: Load of the machine at the start.
        load_after: Load of the machine at the end.
        rounds: Number of rounds.
        seed: Random seed of the order within rounds and of the image.
        tiers: Our isolation levels that took part, with their layers.
        missing: Contestants that did not take part, each with how to install it.
        turns: Seconds by contestant and row.
        episodes: Seconds per episode, one at a time.
        parallel: Episodes per second with one thread per core, by contestant and kind.
        memory: Memory of an idle session, by isolation level.
        kills: Seconds from the signal to the end, by isolation level and activity of the session.
        crowd: Measurements of many sessions at once.
        layers: Seconds by isolation layer, each with the previous ones, and row.
    """

    machine: Machine
    load_before: float
    load_after: float
    rounds: int
    seed: int
    tiers: dict[str, str]
    missing: dict[str, str]
    turns: Result
    episodes: Result
    parallel: dict[str, dict[str, float]]
    memory: dict[str, IdleMemory]
    kills: dict[str, dict[str, float]]
    crowd: Crowd | None
    layers: Result


@dataclass
class SandboxBench:
    """The benchmark, ready to run.

    Args:
        rounds: Number of rounds.
        sessions: Number of concurrent sessions in the crowd; 0 leaves it out.
        seed: Random seed of the order within rounds and of the image.
        image: Image of the docker backend; None for the default one.
        on_progress: Called with the name of the current measurement.
    """

    rounds: int = 20
    sessions: int = 1000
    seed: int = 0
    image: str | None = None
    on_progress: Callable[[str], None] = lambda _: None
    _ours: dict[str, LocalSandbox] = field(default_factory=dict[str, LocalSandbox], init=False)
    _missing: dict[str, str] = field(default_factory=dict[str, str], init=False)

    def run(self) -> SandboxReport:
        """Measure everything, one benchmark after the other."""
        picture = input_picture(self.seed)
        load_before = load()
        with contextlib.ExitStack() as stack:
            stateful = [bare_exec(picture)]
            for name, sandbox in self._open_ours():
                self._ours[name] = sandbox
                stateful.append(our_sandbox(name, sandbox, picture))
                stack.callback(stateful[-1].close)
            everyone: list[Contestant] = [*stateful, FreshPython(picture)]
            for peer in self._open_peers(picture):
                everyone.append(peer)
                stack.callback(peer.close)
            return SandboxReport(
                machine=describe_machine(),
                load_before=load_before,
                rounds=self.rounds,
                seed=self.seed,
                tiers={name: sandbox.tier for name, sandbox in self._ours.items()},
                missing=self._missing,
                turns=self._rounds("turns", everyone, ROWS),
                episodes=self._rounds("episodes", stateful, EPISODE_ROWS),
                parallel={each.name: self._parallel(each) for each in stateful[1:]},
                memory=self._memory(),
                kills={name: self._kills(name) for name in self._ours},
                crowd=self._crowd(),
                layers=self._layers(picture),
                load_after=load(),
            )

    def _open_ours(self) -> Iterator[tuple[str, LocalSandbox]]:
        for name in OURS:
            self.on_progress(f"opening {name}")
            try:
                yield name, _open_tier(name, self.image)
            except SandboxError as error:
                self._missing[name] = str(error)

    def _open_peers(self, picture: Image.Image) -> Iterator[Contestant]:
        openers: dict[str, Callable[[], Contestant]] = {
            "docker exec": lambda: DockerExec(picture, self.image or DEFAULT_IMAGE),
            "Jupyter kernel": lambda: jupyter(picture),
        }
        for name, open_peer in openers.items():
            self.on_progress(f"opening {name}")
            try:
                yield open_peer()
            except Missing as missing:
                self._missing[name] = str(missing)

    def _rounds(self, what: str, those: Sequence[Contestant], rows: Sequence[Row]) -> Result:
        def on_progress(done: int) -> None:
            self.on_progress(f"{what}: round {done} of {self.rounds}")

        return run_rounds(those, rows, rounds=self.rounds, seed=self.seed, on_progress=on_progress)

    def _layers(self, picture: Image.Image) -> Result:
        """Measure a session's cycle with an increasing number of isolation layers."""
        with contextlib.ExitStack() as stack:
            layered: list[Contestant] = []
            for layer, isolation in LAYERED_ISOLATION.items():
                self.on_progress(f"layers: {layer}")
                with contextlib.suppress(SandboxError):  # reported as a missing isolation level
                    sandbox = _open_isolation(isolation)
                    layered.append(our_sandbox(layer, sandbox, picture))
                    stack.callback(layered[-1].close)
            return self._rounds("layers", layered, LAYER_ROWS)

    def _parallel(self, contestant: Stateful) -> dict[str, float]:
        """Return episodes per second with one thread per core."""
        self.on_progress(f"episodes in parallel: {contestant.name}")
        rates: dict[str, float] = {}
        threads = core_count()
        for kind, turns in EPISODES.items():
            count = self.rounds * threads
            with ThreadPoolExecutor(threads) as pool:
                started = time.perf_counter()
                list(pool.map(lambda _, turns=turns: contestant.episode(turns), range(count)))
                rates[kind] = count / (time.perf_counter() - started)
        return rates

    def _memory(self) -> dict[str, IdleMemory]:
        self.on_progress("memory of idle sessions")
        seen = {name: idle_memory(sandbox) for name, sandbox in self._ours.items()}
        return {name: memory for name, memory in seen.items() if memory is not None}

    def _kills(self, name: str) -> dict[str, float]:
        """Return the median seconds to die, by activity of the session."""
        self.on_progress(f"kills: {name}")
        found: dict[str, float] = {}
        for kind, code in KILLS.items():
            with contextlib.suppress(PermissionError):  # processes of a container's user
                times = [
                    kill_seconds(self._ours[name], code)
                    for _ in range(min(self.rounds, _MOST_KILLS))
                ]
                known = [seconds for seconds in times if seconds is not None]
                if known:
                    found[kind] = statistics.median(known)
        return found

    def _crowd(self) -> Crowd | None:
        name = next((name for name in (FULL, CONFINED) if name in self._ours), None)
        if name is None or not self.sessions:
            return None
        self.on_progress(f"{self.sessions} sessions at once")
        return crowd(self._ours[name], self.sessions)


def _open_tier(name: str, image: str | None) -> LocalSandbox:
    """Open a sandbox with exactly this isolation level."""
    if name == DOCKER:
        plan = container_plan(DEFAULT_LIBRARIES, _LIMITS)
        return LocalSandbox(plan, floor="confined", start=starter(image))
    return _open_isolation("none" if name == NO_ISOLATION else name)


def _open_isolation(isolation: str) -> LocalSandbox:
    plan = ZygotePlan(ask_interpreter(sys.executable), DEFAULT_LIBRARIES, _LIMITS, isolation)
    return LocalSandbox(plan, floor="none")
