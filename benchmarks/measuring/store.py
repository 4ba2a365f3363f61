"""The store benchmark: SQLite with either journal and PostgreSQL, the same steps in one run."""

from __future__ import annotations

import contextlib
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance.envs.types import Action, Ending, Message, Task, Tokens, Trajectory, Turn
from codedance.pipelines.runs.machine import Machine, describe_machine, load
from codedance.pipelines.store.connection.database import open_database
from codedance.pipelines.store.connection.errors import StoreError
from codedance.pipelines.store.connection.mounts import MOUNTS
from codedance.pipelines.store.connection.patience import Patience
from codedance.pipelines.store.images import ImageFolder
from codedance.pipelines.store.lineage import StageRequest
from codedance.pipelines.store.maintenance.listing import holdings
from codedance.pipelines.store.maintenance.pruning import prune
from codedance.pipelines.store.maintenance.verify import verify
from codedance.pipelines.store.store import Store
from codedance.sandbox import Execution, Outcome
from PIL import Image

from .episodes import bench_tasks
from .postgres import PostgresMissing, PostgresServer
from .rounds import Result, Row, run_rounds

SQLITE = "SQLite"
ROLLBACK = "SQLite, rollback journal"
POSTGRES = "PostgreSQL"
WRITE, READ, FIGURES = "write", "read", "figures"
ROWS = (Row(WRITE, SQLITE, repeats=3), Row(READ, SQLITE), Row(FIGURES, SQLITE))
TASKS, SAMPLES = 8, 8
"""Tasks per step and samples per task, about as in the preset ``quick``."""

_CODE = "part = input_image.crop(({0}, {1}, {0} + 24, {1} + 24)).resize((96, 96))\npart"
_TOKENS = 320
_NETWORK = "server:/export / nfs4 rw 0 0\n"
"""A mount table in which every file is on a network file system."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Size of a thousand trajectories, and the time of a check.

    Attributes:
        database_bytes: Size of the database per thousand trajectories.
        picture_bytes: Size of the images per thousand trajectories, each stored once.
        pictures: Number of images per thousand trajectories.
        verify_seconds: Time to check the whole store.
    """

    database_bytes: float
    picture_bytes: float
    pictures: float
    verify_seconds: float


@dataclass(frozen=True, slots=True)
class StoreReport:
    """Results of one run.

    Attributes:
        machine: Machine of the run.
        load_before: Load of the machine at the start.
        load_after: Load of the machine at the end.
        rounds: Number of rounds.
        seed: Random seed of the order within rounds and of the stored data.
        step_rows: Database rows per step.
        trajectories: Number of trajectories in each store when it was checked and measured.
        result: Seconds by contestant and row.
        sizes: Sizes by contestant.
        missing: Contestants that did not take part, each with how to install it.
    """

    machine: Machine
    load_before: float
    load_after: float
    rounds: int
    seed: int
    step_rows: int
    trajectories: int
    result: Result
    sizes: dict[str, Sizes]
    missing: dict[str, str]

    def rows_a_second(self, name: str) -> float:
        """Return the number of rows that a contestant stores per second."""
        seconds = self.result.median(name, WRITE)
        return self.step_rows / seconds if seconds else 0.0


@dataclass
class StoreBench:
    """The benchmark, ready to run.

    Args:
        trajectories: Number of trajectories in each store when it is checked and measured.
        rounds: Number of rounds of writing and reading.
        seed: Random seed of the order within rounds and of the stored data.
        postgres: Address of an empty database; None starts a temporary server.
        on_progress: Called with the name of the current measurement.
    """

    trajectories: int = 2000
    rounds: int = 5
    seed: int = 0
    postgres: str | None = None
    on_progress: Callable[[str], None] = lambda _: None

    def run(self) -> StoreReport:
        """Measure everything, contestants taking turns.

        Raises:
            StoreError: The database at ``postgres`` is not empty, or cannot be reached.
        """
        load_before, missing = load(), dict[str, str]()
        steps = make_steps(self.trajectories, self.seed)
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="codedance-")))
            contestants = [
                stack.enter_context(contextlib.closing(contestant))
                for contestant in self._open(folder, steps, stack, missing)
            ]
            result = run_rounds(
                contestants,
                ROWS,
                rounds=self.rounds,
                seed=self.seed,
                on_progress=lambda done: self.on_progress(f"round {done} of {self.rounds}"),
            )
            sizes: dict[str, Sizes] = {}
            for each in contestants:
                self.on_progress(f"{each.name}: filling and checking")
                sizes[each.name] = each.measure(self.trajectories)
        return StoreReport(
            machine=describe_machine(),
            load_before=load_before,
            load_after=load(),
            rounds=self.rounds,
            seed=self.seed,
            step_rows=sum(map(_row_count, steps[0])),
            trajectories=self.trajectories,
            result=result,
            sizes=sizes,
            missing=missing,
        )

    def _open(
        self,
        folder: Path,
        steps: Sequence[Sequence[Trajectory]],
        stack: contextlib.ExitStack,
        missing: dict[str, str],
    ) -> Iterator[StoreContestant]:
        tasks = bench_tasks(_task_count(self.trajectories))
        pretended = folder / "mounts"
        pretended.write_text(_NETWORK, encoding="utf-8")
        for name, file, mounts in ((SQLITE, "log", None), (ROLLBACK, "rollback", pretended)):
            store = _open_store(f"sqlite:///{folder / file}.db", folder / file, mounts)
            yield StoreContestant(name, store, tasks, steps)
        try:
            address = self.postgres or stack.enter_context(PostgresServer()).make_database("store")
        except PostgresMissing as error:
            missing[POSTGRES] = str(error)
            return
        store = _open_store(address, folder / "postgres", None)
        if store.lineage.find():
            store.close()
            raise StoreError(f"{store.database.address} contains runs: name an empty database")
        yield StoreContestant(POSTGRES, store, tasks, steps)


class StoreContestant:
    """A store that is written and read; it removes its data at the end.

    Args:
        name: Name in the table.
        store: Empty store.
        tasks: Tasks of all trajectories.
        steps: Trajectories of each step, stored repeatedly.
    """

    stride = 1

    def __init__(
        self,
        name: str,
        store: Store,
        tasks: Sequence[Task],
        steps: Sequence[Sequence[Trajectory]],
    ) -> None:
        self.name, self._store = name, store
        self._tasks = {task.id: task for task in tasks}
        self._steps, self._step = steps, 0
        request = StageRequest("grpo", "bench", {}, {}, 0, "bench")
        self._run = store.lineage.begin(request).id

    def work(self, row: str) -> Callable[[], None] | None:
        """Return a function that does a row's work once."""
        return {WRITE: self.write, READ: self.read, FIGURES: self.figures}.get(row)

    def write(self) -> None:
        """Store one more step."""
        given = self._steps[self._step % len(self._steps)]
        self._step += 1
        tasks = [self._tasks[task_id] for task_id in dict.fromkeys(t.task_id for t in given)]
        self._store.add_trajectories(
            tasks, given, stage_run=self._run, phase="train", step=self._step
        )

    def read(self) -> None:
        """Read the newest step back completely, as another process would."""
        newest = [e.id for e in self._store.episodes(self._run, "train")][-TASKS * SAMPLES :]
        self._store.trajectories(newest)

    def figures(self) -> None:
        """Read the figures of all steps."""
        self._store.episodes(self._run)

    def measure(self, trajectories: int) -> Sizes:
        """Fill the store up to a number of trajectories, check it, and measure its size."""
        while len(self._store.episodes(self._run)) < trajectories:
            self.write()
        begun = time.perf_counter()
        verdict = verify(self._store)
        seconds = time.perf_counter() - begun
        if not verdict.is_whole:
            raise RuntimeError(f"{self.name} lost stored data: {verdict.findings[0]}")
        held = holdings(self._store)
        thousands = held.rows["trajectories"] / 1000
        return Sizes(
            held.database_bytes / thousands,
            held.picture_bytes / thousands,
            held.pictures / thousands,
            seconds,
        )

    def close(self) -> None:
        """Remove the stored data."""
        runs = self._store.lineage.find()
        self._store.images.close()
        prune(self._store, runs, is_dry=False)
        self._store.close()


def make_steps(trajectories: int, seed: int) -> list[list[Trajectory]]:
    """Return steps of 64 trajectories: two crops and an answer each, as the nano model writes."""
    draw = random.Random(seed)
    tasks = bench_tasks(_task_count(trajectories))
    return [
        [_trajectory(task, draw) for task in tasks[start : start + TASKS] for _ in range(SAMPLES)]
        for start in range(0, len(tasks), TASKS)
    ]


def _task_count(trajectories: int) -> int:
    """Return the number of tasks of whole steps, enough to store no step twice."""
    return TASKS * max(2, -(-trajectories // (TASKS * SAMPLES)))


def _open_store(address: str, folder: Path, mounts: Path | None) -> Store:
    folder.mkdir()
    silent = Patience(say=lambda _: None)  # no message about the journal: the table names it
    database = open_database(address, silent, mounts=mounts or MOUNTS)
    return Store(database, ImageFolder(folder))


def _trajectory(task: Task, draw: random.Random) -> Trajectory:
    turns = [_turn(task.images[0], draw) for _ in range(2)]
    text = f"<think>\nThe crop shows it.\n</think>\n<answer>{task.answer}</answer>"
    turns.append(Turn(text, Action("answer", task.answer)))
    tokens = Tokens(
        ids=tuple(draw.randrange(441) for _ in range(_TOKENS)),
        log_probabilities=tuple(-draw.random() for _ in range(_TOKENS)),
        turn_of=tuple(position * 3 // _TOKENS for position in range(_TOKENS)),
        images=3,
    )
    return Trajectory(
        task_id=task.id,
        policy_id="bench",
        seed=draw.randrange(2**62),
        opening=(Message("user", (*task.images, task.question)),),
        turns=tuple(turns),
        ending=Ending.ANSWERED,
        accuracy=1.0,
        answer=task.answer,
        reward_terms={"accuracy": 1.0, "format": 0.0, "tool_sequence": 0.2, "tool_turn": 0.0},
        tokens=tokens,
        pass_rate=0.5,
    )


def _turn(picture: Image.Image, draw: random.Random) -> Turn:
    left, top = draw.randrange(picture.width - 24), draw.randrange(picture.height - 24)
    code = _CODE.format(left, top)
    part = picture.crop((left, top, left + 24, top + 24)).resize((96, 96))
    execution = Execution(Outcome.OK, images=(part,), wall_seconds=0.01, cpu_seconds=0.01)
    reply = Message("user", ("<tool_response>\n", part, "\n</tool_response>"))
    text = (
        f"<think>\nA closer look at the corner.\n</think>\n<code>\n```python\n{code}\n```\n</code>"
    )
    return Turn(text, Action("code", code), execution, reply, has_evidence=True)


def _row_count(trajectory: Trajectory) -> int:
    """Return the number of rows of a trajectory: itself, its turns, executions and scores."""
    runs = sum(turn.execution is not None for turn in trajectory.turns)
    return 1 + len(trajectory.turns) + runs + len(trajectory.reward_terms)
