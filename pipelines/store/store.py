"""The trajectory store: writes batches of trajectories atomically and reads them back unchanged.

Images are written first, rows afterwards in one transaction: even if the process is killed, there
is never a row whose image is missing. A process that has lost its claim writes no image; those that
no row names, as after a kill, are removed by ``store prune``. A trajectory that is already stored
(same stage run, phase, step, task and sample) is not stored again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from ...envs.types import Task, Trajectory
from ..config.home import Home
from .connection.database import Database, open_database
from .connection.errors import StoreError
from .connection.mounts import MOUNTS
from .connection.patience import Patience
from .digests import trajectory_digest, verdict_digest
from .episodes import Episode, read_episodes, read_session_losses
from .images import ImageFolder
from .lineage import Lineage
from .programs import Program, read_programs
from .reading import read_batch, read_tasks
from .rows import GetImage, Row, TrajectoryRows, task_row, trajectory_rows
from .schema import CurationRow, ScoreRow, TaskRow, TrajectoryRow
from .seals import (
    CURATION,
    MODEL,
    TRAJECTORIES,
    curation_content,
    model_content,
    put_seal,
    seal_verdicts,
    trajectories_content,
)
from .writing import ORIGINAL, batches, insert_new, insert_tasks

CACHED_TASKS = 4096


class Store:
    """Tasks, trajectories and lineage of one ``CODEDANCE_DIR``; safe to share between threads."""

    def __init__(self, database: Database, images: ImageFolder) -> None:
        self.database = database
        self.images = images
        images.guard = database.check_guard
        self.lineage = Lineage(database)
        self._keys: dict[int, tuple[Task, str]] = {}

    def close(self) -> None:
        """Close the connections, and release the image folder."""
        self.database.close()
        self.images.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_tasks(self, tasks: Iterable[Task]) -> dict[str, str]:
        """Store the tasks that are not stored yet; return the keys by task id."""
        self.images.hold()
        keys: dict[str, str] = {}
        fresh: dict[str, tuple[Task, Row]] = {}
        for task in tasks:
            kept = self._keys.get(id(task))
            if kept is None or kept[0] is not task:
                row = task_row(task, self.images.put)
                fresh[row["key"]] = (task, row)
                kept = (task, row["key"])
            keys[task.id] = kept[1]
        if fresh:
            self.database.run(partial(insert_tasks, {k: row for k, (_, row) in fresh.items()}))
            if len(self._keys) + len(fresh) > CACHED_TASKS:
                self._keys.clear()
            self._keys.update({id(task): (task, key) for key, (task, _) in fresh.items()})
        return keys

    def add_trajectories(
        self,
        tasks: Iterable[Task],
        trajectories: Sequence[Trajectory],
        *,
        stage_run: str,
        phase: str,
        step: int = 0,
        samples: Mapping[str, Sequence[int]] | None = None,
    ) -> int:
        """Store the trajectories that are not stored yet, atomically; return their number.

        A trajectory's sample number is its index among those of its task in ``trajectories``, or
        the number that ``samples`` maps this index to, by task id. It replaces a stored one only
        if that has no verdict, because infrastructure lost it.

        Raises:
            StoreFullError: No space is left; nothing of this batch was stored.
        """
        keys = self.add_tasks(tasks)
        counts: Counter[str] = Counter()
        heads: list[Row] = []
        parts: list[TrajectoryRows] = []
        for trajectory in trajectories:
            rows = trajectory_rows(trajectory, self.images.put)
            sample = counts[trajectory.task_id]
            counts[trajectory.task_id] += 1
            if samples is not None:
                sample = samples[trajectory.task_id][sample]
            place = {"stage_run": stage_run, "phase": phase, "step": step, "sample": sample}
            head = {**rows.trajectory, **place, "task_key": keys[trajectory.task_id]}
            head["digest"] = trajectory_digest(head, rows.turns, rows.executions)
            scores = [(ORIGINAL, term, value) for term, value in rows.scores.items()]
            head["verdict_digest"] = verdict_digest(trajectory.accuracy, scores)
            heads.append(head)
            parts.append(rows)
        return self.database.run(partial(insert_new, heads, parts)) if heads else 0

    def forget_steps(self, stage_run: str, phase: str, *, after: int) -> int:
        """Remove the trajectories of steps past ``after``, for a rerun; return their number."""
        chosen = (
            TrajectoryRow.stage_run == stage_run,
            TrajectoryRow.phase == phase,
            TrajectoryRow.step > after,
        )

        def work(session: Session) -> int:
            count = session.scalar(select(func.count()).select_from(TrajectoryRow).where(*chosen))
            session.execute(delete(TrajectoryRow).where(*chosen))
            return count or 0

        return self.database.run(work)

    def stored_samples(self, stage_run: str, phase: str) -> dict[str, int]:
        """Return the number of trajectories per task in a phase, by task key."""
        query = (
            select(TrajectoryRow.task_key, func.count())
            .where(TrajectoryRow.stage_run == stage_run, TrajectoryRow.phase == phase)
            .group_by(TrajectoryRow.task_key)
        )
        return self.database.run(lambda session: dict(session.execute(query).tuples().all()))

    def scored_samples(self, stage_run: str, phase: str) -> dict[str, set[int]]:
        """Return the numbers of the samples with a verdict, by task key."""
        query = select(TrajectoryRow.task_key, TrajectoryRow.sample).where(
            TrajectoryRow.stage_run == stage_run,
            TrajectoryRow.phase == phase,
            TrajectoryRow.accuracy.is_not(None),
        )
        found: defaultdict[str, set[int]] = defaultdict(set)
        for key, sample in self.database.run(lambda s: s.execute(query).tuples().all()):
            found[key].add(sample)
        return dict(found)

    def episodes(self, stage_run: str, phase: str | None = None) -> list[Episode]:
        """Return the figures of a stage run's trajectories, in the order they were stored."""
        return self.database.run(partial(read_episodes, stage_run=stage_run, phase=phase))

    def session_losses(self, stage_run: str) -> dict[tuple[str, str], int]:
        """Return the number of sessions lost while they ran code, by policy and task id."""
        return self.database.run(partial(read_session_losses, stage_run=stage_run))

    def trajectories(
        self, ids: Sequence[int], *, scoring: str = ORIGINAL, get: GetImage | None = None
    ) -> list[Trajectory]:
        """Return whole trajectories, in the order of ``ids``, with the reward terms of a scoring.

        ``get`` returns an image for its digest; None loads and checks the stored one.
        """
        found: dict[int, Trajectory] = {}
        for batch in batches(ids):
            found |= self.database.run(
                partial(read_batch, ids=batch, scoring=scoring, get=get or self.images.get)
            )
        missing = [n for n in ids if n not in found]
        if missing:
            raise StoreError(f"trajectories {missing[:5]} are not in the store")
        return [found[n] for n in ids]

    def tasks(self, keys: Sequence[str], *, with_images: bool = True) -> dict[str, Task]:
        """Return tasks by key."""
        found: dict[str, Task] = {}
        for batch in batches(keys):
            found |= self.database.run(
                partial(read_tasks, keys=batch, get=self.images.get, with_images=with_images)
            )
        return found

    def answers(self, ids: Sequence[int]) -> dict[int, str]:
        """Return the right answer of each trajectory's task, by trajectory id."""
        found: dict[int, str] = {}
        for batch in batches(ids):
            query = (
                select(TrajectoryRow.id, TaskRow.answer)
                .join(TaskRow, TaskRow.key == TrajectoryRow.task_key)
                .where(TrajectoryRow.id.in_(batch))
            )
            found |= self.database.run(
                lambda session, query=query: dict(session.execute(query).tuples().all())
            )
        return found

    def programs(self, stage_run: str) -> list[Program]:
        """Return the code of a stage run's trajectories, without images."""
        return self.database.run(partial(read_programs, stage_run=stage_run))

    def add_scores(self, scoring: str, scores: Mapping[int, Mapping[str, float | None]]) -> None:
        """Store reward terms by trajectory id under the name ``scoring``, replacing older ones."""
        rows = [
            {"trajectory": trajectory, "scoring": scoring, "term": term, "value": value}
            for trajectory, terms in scores.items()
            for term, value in terms.items()
        ]

        def work(session: Session) -> None:
            for batch in batches(list(scores)):
                chosen = ScoreRow.trajectory.in_(batch), ScoreRow.scoring == scoring
                session.execute(delete(ScoreRow).where(*chosen))
            if rows:
                session.execute(insert(ScoreRow), rows)
            for batch in batches(list(scores)):
                seal_verdicts(session, batch)

        self.database.run(work)

    def scores(self, stage_run: str, *, scoring: str = ORIGINAL) -> dict[int, dict[str, Any]]:
        """Return the reward terms of a stage run's trajectories, by trajectory id."""
        query = (
            select(ScoreRow.trajectory, ScoreRow.term, ScoreRow.value)
            .join(TrajectoryRow, TrajectoryRow.id == ScoreRow.trajectory)
            .where(TrajectoryRow.stage_run == stage_run, ScoreRow.scoring == scoring)
        )
        terms: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        found = self.database.run(lambda session: session.execute(query).tuples().all())
        for trajectory, term, value in found:
            terms[trajectory][term] = value
        return dict(terms)

    def set_accuracy(self, verdicts: Mapping[int, float]) -> None:
        """Replace the accuracy of trajectories, by id, after a rescoring."""
        rows = [{"id": number, "accuracy": value} for number, value in verdicts.items()]

        def work(session: Session) -> None:
            session.execute(update(TrajectoryRow), rows)
            for batch in batches(list(verdicts)):
                seal_verdicts(session, batch)

        if rows:
            self.database.run(work)

    def set_curation(self, stage_run: str, rows: Sequence[Row]) -> None:
        """Store a curation's decisions, replacing older ones of the same stage run."""
        own = [{**row, "stage_run": stage_run} for row in rows]

        def work(session: Session) -> None:
            session.execute(delete(CurationRow).where(CurationRow.stage_run == stage_run))
            if own:
                session.execute(insert(CurationRow), own)
            put_seal(session, stage_run, CURATION, curation_content(session, stage_run))

        self.database.run(work)

    def seal_stage(self, stage_run: str, model: Path | None = None) -> None:
        """Seal the results of a finished stage run, for ``store verify``.

        Args:
            stage_run: Id of the stage run, whose trajectories are all stored.
            model: Folder of its checkpoint; None for a stage without one.

        Raises:
            OSError: A file of the model cannot be read.
        """
        files = None if model is None else model_content(model)

        def work(session: Session) -> None:
            put_seal(session, stage_run, TRAJECTORIES, trajectories_content(session, stage_run))
            if files is not None:
                put_seal(session, stage_run, MODEL, files)

        self.database.run(work)

    def curation(self, stage_run: str) -> list[CurationRow]:
        """Return a curation's decisions, in the order of the candidates."""
        query = select(CurationRow).where(CurationRow.stage_run == stage_run)

        def work(session: Session) -> list[CurationRow]:
            rows = list(session.scalars(query.order_by(CurationRow.position)))
            session.expunge_all()
            return rows

        return self.database.run(work)


def open_store(home: Home, patience: Patience | None = None, *, mounts: Path = MOUNTS) -> Store:
    """Open the store of a ``CODEDANCE_DIR``, which is created if missing.

    Args:
        home: Home folder of the store, unless ``CODEDANCE_STORE_URL`` names another.
        patience: Longest wait for a database that becomes unreachable later; None for no wait.
        mounts: The kernel's list of mounts.

    Raises:
        StoreError: The store cannot be opened.
    """
    return Store(open_database(home.store_url, patience, mounts=mounts), ImageFolder(home.images))
