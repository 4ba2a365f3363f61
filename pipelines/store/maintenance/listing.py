"""Contents of a store by run: the figures of `codedance store list` and ``show``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from ..connection.migrating import schema_version
from ..lineage import StageRun
from ..schema import ExecutionRow, ScoreRow, TaskRow, TrajectoryRow, TurnRow
from ..store import Store

_COUNTED = {
    "tasks": TaskRow,
    "trajectories": TrajectoryRow,
    "turns": TurnRow,
    "executions": ExecutionRow,
    "scores": ScoreRow,
}


@dataclass(frozen=True, slots=True)
class Phase:
    """The trajectories of one phase of a stage run.

    Attributes:
        name: Name of the phase.
        trajectories: Number of trajectories.
        steps: Number of distinct steps.
        scored: Number of trajectories with an accuracy.
        right: Sum of the accuracies.
        calls: Number of tool calls in all trajectories.
        first: Lowest id of a trajectory of the phase.
        last: Highest id; ids between may belong to other phases that were stored concurrently.
    """

    name: str
    trajectories: int
    steps: int
    scored: int
    right: float
    calls: int
    first: int
    last: int

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy of the scored trajectories; None without any."""
        return self.right / self.scored if self.scored else None


@dataclass(frozen=True, slots=True)
class Listed:
    """A run with its stored phases."""

    run: StageRun
    phases: tuple[Phase, ...]

    @property
    def trajectories(self) -> int:
        """Number of trajectories in all phases."""
        return sum(phase.trajectories for phase in self.phases)


@dataclass(frozen=True, slots=True)
class Holdings:
    """Total contents and size of a store.

    Attributes:
        address: Address of the database, without the password.
        schema: Newest migration of the database.
        rows: Number of rows, by table.
        database_bytes: Size of the database, in bytes.
        images: Folder of the images.
        pictures: Number of images.
        picture_bytes: Size of all images, in bytes.
    """

    address: str
    schema: str | None
    rows: Mapping[str, int]
    database_bytes: int
    images: Path
    pictures: int
    picture_bytes: int


def list_runs(store: Store, runs: Sequence[StageRun]) -> list[Listed]:
    """Return each of these runs with its stored phases."""
    phases = store.database.run(_read_phases)
    return [Listed(run, tuple(phases[run.id])) for run in runs]


def holdings(store: Store) -> Holdings:
    """Return the contents and size of a store."""
    sizes = [path.stat().st_size for path in store.images.root.glob("??/*.png")]
    return Holdings(
        address=store.database.address,
        schema=schema_version(store.database.engine),
        rows=store.database.run(_count_rows),
        database_bytes=database_bytes(store),
        images=store.images.root,
        pictures=len(sizes),
        picture_bytes=sum(sizes),
    )


def database_bytes(store: Store) -> int:
    """Return the size of the database in bytes: SQLite's file and log, or the server's figure."""
    if not store.database.is_sqlite:
        query = text("SELECT pg_database_size(current_database())")
        return store.database.run(lambda session: int(session.scalar(query) or 0))
    file = store.database.engine.url.database or ""
    paths = [Path(file), Path(f"{file}-wal")]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _count_rows(session: Session) -> dict[str, int]:
    return {
        name: session.scalar(select(func.count()).select_from(table)) or 0
        for name, table in _COUNTED.items()
    }


def _read_phases(session: Session) -> defaultdict[str, list[Phase]]:
    t = TrajectoryRow
    query = (
        select(t.stage_run, t.phase, func.count(), func.count(func.distinct(t.step)))
        .add_columns(func.count(t.accuracy), func.coalesce(func.sum(t.accuracy), 0.0))
        .add_columns(func.sum(t.tool_calls), func.min(t.id), func.max(t.id))
        .group_by(t.stage_run, t.phase)
        .order_by(func.min(t.id))
    )
    phases: defaultdict[str, list[Phase]] = defaultdict(list)
    for run, name, count, steps, scored, right, calls, *ends in session.execute(query).tuples():
        phases[run].append(Phase(name, count, steps, scored, float(right), int(calls), *ends))
    return phases
