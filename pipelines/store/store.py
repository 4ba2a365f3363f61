"""The store itself: writes whole batches of trajectories or nothing, reads them back as they were.

Pictures are written first, rows afterwards in one transaction: whatever stops the process, there
is never a row whose picture is missing. A trajectory that is stored already (same stage run,
phase, step, task and sample) is not stored again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from sqlalchemy import Engine, delete, func, insert, select, update
from sqlalchemy.orm import Session

from ...envs.types import Band, Ending, Task, Trajectory
from ..home import Home
from .database import open_engine, transaction
from .images import ImageFolder, StoreError
from .lineage import Lineage
from .programs import Program, read_programs
from .reading import read_batch
from .rows import (
    GetImage,
    Row,
    TrajectoryRows,
    read_task,
    task_row,
    trajectory_rows,
)
from .schema import (
    CurationRow,
    ExecutionRow,
    ScoreRow,
    TaskRow,
    TrajectoryRow,
    TurnRow,
)

Item = TypeVar("Item")
ORIGINAL = "original"
CACHED_TASKS = 4096
BATCH = 400
"""Ids in one IN (…): below every database's limit."""


@dataclass(frozen=True, slots=True)
class Episode:
    """The figures of a stored trajectory: what statistics need, no text and no pictures."""

    id: int
    phase: str
    step: int
    sample: int
    task_key: str
    task_id: str
    family: str
    difficulty: Band
    accuracy: float | None
    ending: Ending
    answer: str | None
    true_answer: str
    tool_calls: int
    tool_successes: int

    @property
    def is_valid(self) -> bool:
        """False when our infrastructure failed: masked, and counted apart."""
        return self.ending is not Ending.INFRASTRUCTURE


class Store:
    """Tasks, trajectories and lineage of one ``CODEDANCE_DIR``; safe to share between threads."""

    def __init__(self, engine: Engine, images: ImageFolder) -> None:
        self._engine = engine
        self.images = images
        self.lineage = Lineage(engine)
        self._keys: dict[int, tuple[Task, str]] = {}

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_tasks(self, tasks: Iterable[Task]) -> dict[str, str]:
        """Store the tasks that are not there yet; give each task's id with its key."""
        keys: dict[str, str] = {}
        rows: dict[str, Row] = {}
        for task in tasks:
            kept = self._keys.get(id(task))
            if kept is None or kept[0] is not task:
                row = task_row(task, self.images.put)
                rows[row["key"]] = row
                kept = (task, row["key"])
                if len(self._keys) >= CACHED_TASKS:
                    self._keys.clear()
                self._keys[id(task)] = kept
            keys[task.id] = kept[1]
        if rows:
            with transaction(self._engine) as session:
                for batch in _batches(list(rows)):
                    query = select(TaskRow.key).where(TaskRow.key.in_(batch))
                    for key in session.scalars(query):
                        del rows[key]
                if rows:
                    session.execute(insert(TaskRow), list(rows.values()))
        return keys

    def add_trajectories(
        self,
        tasks: Iterable[Task],
        trajectories: Sequence[Trajectory],
        *,
        stage_run: str,
        phase: str,
        step: int = 0,
    ) -> int:
        """Store what is not stored yet, all of it or nothing; give how many were new.

        A trajectory's sample number is its place among those of its task in ``trajectories``.

        Raises:
            StoreFullError: No room is left; nothing of this batch was stored.
        """
        keys = self.add_tasks(tasks)
        counts: Counter[str] = Counter()
        heads: list[Row] = []
        parts: list[TrajectoryRows] = []
        for trajectory in trajectories:
            rows = trajectory_rows(trajectory, self.images.put)
            sample = counts[trajectory.task_id]
            counts[trajectory.task_id] += 1
            place = {"stage_run": stage_run, "phase": phase, "step": step, "sample": sample}
            heads.append({**rows.trajectory, **place, "task_key": keys[trajectory.task_id]})
            parts.append(rows)
        with transaction(self._engine) as session:
            known = _known(session, heads)
            new = [n for n, h in enumerate(heads) if (h["task_key"], h["sample"]) not in known]
            if new:
                _insert(session, [heads[n] for n in new], [parts[n] for n in new])
        return len(new)

    def forget_steps(self, stage_run: str, phase: str, *, after: int) -> int:
        """Remove what was stored of steps past ``after``: they are about to be done again."""
        with transaction(self._engine) as session:
            chosen = (
                TrajectoryRow.stage_run == stage_run,
                TrajectoryRow.phase == phase,
                TrajectoryRow.step > after,
            )
            count = session.scalar(select(func.count()).select_from(TrajectoryRow).where(*chosen))
            session.execute(delete(TrajectoryRow).where(*chosen))
        return count or 0

    def stored_samples(self, stage_run: str, phase: str) -> dict[str, int]:
        """Give how many trajectories each task (by key) has in a phase."""
        query = (
            select(TrajectoryRow.task_key, func.count())
            .where(TrajectoryRow.stage_run == stage_run, TrajectoryRow.phase == phase)
            .group_by(TrajectoryRow.task_key)
        )
        with transaction(self._engine) as session:
            return dict(session.execute(query).tuples().all())

    def episodes(self, stage_run: str, phase: str | None = None) -> list[Episode]:
        """Give the figures of a stage run's trajectories, in the order they were stored."""
        t = TrajectoryRow
        query = (
            select(t.id, t.phase, t.step, t.sample, t.task_key, TaskRow.task_id, TaskRow.family)
            .add_columns(TaskRow.difficulty, t.accuracy, t.ending, t.answer, TaskRow.answer)
            .add_columns(t.tool_calls, t.tool_successes)
            .join(TaskRow, TaskRow.key == t.task_key)
            .where(t.stage_run == stage_run)
            .order_by(t.id)
        )
        if phase is not None:
            query = query.where(t.phase == phase)
        with transaction(self._engine) as session:
            return [_read_episode(row) for row in session.execute(query).tuples()]

    def trajectories(
        self, ids: Sequence[int], *, scoring: str = ORIGINAL, get: GetImage | None = None
    ) -> list[Trajectory]:
        """Give whole trajectories, in the order of ``ids``, with the reward terms of a scoring.

        ``get`` makes a picture of its digest; None loads and checks the stored one.
        """
        found: dict[int, Trajectory] = {}
        with transaction(self._engine) as session:
            for batch in _batches(ids):
                found.update(read_batch(session, batch, scoring, get or self.images.get))
        missing = [n for n in ids if n not in found]
        if missing:
            raise StoreError(f"trajectories {missing[:5]} are not in the store")
        return [found[n] for n in ids]

    def tasks(self, keys: Sequence[str], *, with_images: bool = True) -> dict[str, Task]:
        """Give tasks by key."""
        found: dict[str, Task] = {}
        with transaction(self._engine) as session:
            for batch in _batches(keys):
                for row in session.scalars(select(TaskRow).where(TaskRow.key.in_(batch))):
                    found[row.key] = read_task(row, self.images.get, with_images=with_images)
        return found

    def programs(self, stage_run: str) -> list[Program]:
        """Give the code of a stage run's trajectories, without their pictures."""
        with transaction(self._engine) as session:
            return read_programs(session, stage_run)

    def add_scores(self, scoring: str, scores: Mapping[int, Mapping[str, float | None]]) -> None:
        """Store reward terms by trajectory id under the name ``scoring``, older ones replaced."""
        rows = [
            {"trajectory": trajectory, "scoring": scoring, "term": term, "value": value}
            for trajectory, terms in scores.items()
            for term, value in terms.items()
        ]
        with transaction(self._engine) as session:
            for batch in _batches(list(scores)):
                chosen = ScoreRow.trajectory.in_(batch), ScoreRow.scoring == scoring
                session.execute(delete(ScoreRow).where(*chosen))
            if rows:
                session.execute(insert(ScoreRow), rows)

    def scores(self, stage_run: str, *, scoring: str = ORIGINAL) -> dict[int, dict[str, Any]]:
        """Give the reward terms of a stage run's trajectories, by trajectory id."""
        query = (
            select(ScoreRow.trajectory, ScoreRow.term, ScoreRow.value)
            .join(TrajectoryRow, TrajectoryRow.id == ScoreRow.trajectory)
            .where(TrajectoryRow.stage_run == stage_run, ScoreRow.scoring == scoring)
        )
        terms: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        with transaction(self._engine) as session:
            for trajectory, term, value in session.execute(query):
                terms[trajectory][term] = value
        return dict(terms)

    def set_accuracy(self, verdicts: Mapping[int, float]) -> None:
        """Replace the accuracy of trajectories, by id: they were graded again."""
        rows = [{"id": number, "accuracy": value} for number, value in verdicts.items()]
        if rows:
            with transaction(self._engine) as session:
                session.execute(update(TrajectoryRow), rows)

    def set_curation(self, stage_run: str, rows: Sequence[Row]) -> None:
        """Store a curation's decisions, older ones of the same stage run replaced."""
        with transaction(self._engine) as session:
            session.execute(delete(CurationRow).where(CurationRow.stage_run == stage_run))
            if rows:
                session.execute(
                    insert(CurationRow), [{**row, "stage_run": stage_run} for row in rows]
                )

    def curation(self, stage_run: str) -> list[CurationRow]:
        """Give a curation's decisions, in the order in which the tasks were looked at."""
        query = select(CurationRow).where(CurationRow.stage_run == stage_run)
        with transaction(self._engine) as session:
            rows = list(session.scalars(query.order_by(CurationRow.position)))
            session.expunge_all()
        return rows


def open_store(home: Home) -> Store:
    """Open the store of a ``CODEDANCE_DIR``, made if it is not there.

    Raises:
        StoreError: It cannot be opened.
    """
    return Store(open_engine(home.store_url), ImageFolder(home.images))


def _batches(items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _known(session: Session, heads: Sequence[Row]) -> set[tuple[str, int]]:
    """Give task and sample of those rows, all of one phase and step, that are stored already."""
    found: set[tuple[str, int]] = set()
    for batch in _batches(list(dict.fromkeys(head["task_key"] for head in heads))):
        query = select(TrajectoryRow.task_key, TrajectoryRow.sample).where(
            TrajectoryRow.stage_run == heads[0]["stage_run"],
            TrajectoryRow.phase == heads[0]["phase"],
            TrajectoryRow.step == heads[0]["step"],
            TrajectoryRow.task_key.in_(batch),
        )
        found.update(session.execute(query).tuples().all())
    return found


def _read_episode(row: tuple[Any, ...]) -> Episode:
    return Episode(
        id=row[0],
        phase=row[1],
        step=row[2],
        sample=row[3],
        task_key=row[4],
        task_id=row[5],
        family=row[6],
        difficulty=Band(row[7]),
        accuracy=row[8],
        ending=Ending(row[9]),
        answer=row[10],
        true_answer=row[11],
        tool_calls=row[12],
        tool_successes=row[13],
    )


def _insert(session: Session, heads: list[Row], parts: list[TrajectoryRows]) -> None:
    statement = insert(TrajectoryRow).returning(TrajectoryRow.id, sort_by_parameter_order=True)
    ids = list(session.scalars(statement, heads))
    turns = [{**turn, "trajectory": n} for n, p in zip(ids, parts, strict=True) for turn in p.turns]
    executions = [
        {**run, "trajectory": n} for n, p in zip(ids, parts, strict=True) for run in p.executions
    ]
    scores = [
        {"trajectory": n, "scoring": ORIGINAL, "term": term, "value": value}
        for n, p in zip(ids, parts, strict=True)
        for term, value in p.scores.items()
    ]
    for table, rows in ((TurnRow, turns), (ExecutionRow, executions), (ScoreRow, scores)):
        if rows:
            session.execute(insert(table), rows)
