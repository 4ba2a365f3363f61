"""Removes runs that nobody needs, and then tasks and pictures that no row names.

A run that another one reads stays unless that one goes too, and none is removed while a process is
at work on it. Tasks and pictures are removed only
while nobody writes: a writer's new ones are named by no row yet.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from ..connection.errors import StoreError, StoreUsageError
from ..lineage import PIPELINE, Lineage, StageRun
from ..readable import pictures_of
from ..schema import CurationRow, ExecutionRow, LineageRow, TaskRow, TrajectoryRow, TurnRow
from ..store import Store
from .checkpoints import alone_in, users_of

_STALE_SECONDS = 3600.0
"""After which a picture that was not written to its end is nobody's any more."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        runs: Their ids.
        trajectories: How many.
        tasks: How many that nothing named any more; None where somebody was writing.
        pictures: How many; None where somebody was writing.
        picture_bytes: Of those.
    """

    runs: tuple[str, ...]
    trajectories: int
    tasks: int | None
    pictures: int | None
    picture_bytes: int


@dataclass(frozen=True, slots=True)
class _Left:
    """What was removed, and which pictures the rest names."""

    trajectories: int
    tasks: int
    used: set[str]


class _DryRun(Exception):  # noqa: N818 - no error: it takes the transaction back
    """Carries what was found out of a transaction that must not hold."""

    def __init__(self, left: _Left) -> None:
        super().__init__()
        self.left = left


def choose(
    lineage: Lineage,
    named: Sequence[StageRun],
    *,
    begun_before: datetime | None = None,
    root: Path | None = None,
) -> list[StageRun]:
    """Return the runs that can go: those named with what they made, and those of old.

    Args:
        lineage: All runs.
        named: To go for certain; the stage runs that a pipeline run made go with it, unless
            others read them.
        begun_before: In UTC; older ones go too, unless others read them. None: no others.
        root: ``CODEDANCE_DIR``: a run whose model another names by its path is read by it. None:
            only those that are named by their ids.

    Raises:
        StoreUsageError: A named run is read by one that stays.
    """
    everyone = lineage.find()
    sure = {run.id for run in named}
    gone = sure | {run.id for run in everyone if run.parent in sure}
    if begun_before is not None:
        gone |= {run.id for run in everyone if run.started_at < begun_before}
    while needed := _needed(everyone, gone, root):
        kept = sorted(needed.keys() & sure)
        if kept:
            raise StoreUsageError(
                f"{needed[kept[0]]} reads {kept[0]}: name {needed[kept[0]]} too, or keep both"
            )
        gone -= needed.keys()
    return [run for run in everyone if run.id in gone]


def _needed(
    everyone: Iterable[StageRun], gone: Collection[str], root: Path | None
) -> dict[str, str]:
    """Return the runs among ``gone`` that one outside reads, each with that one."""
    staying = [run for run in everyone if run.id not in gone]
    found = {
        str(value): run.id
        for run in staying
        for value in (*run.inputs.values(), *run.outputs.values())
        if str(value) in gone
    }
    by_path = {} if root is None else users_of(staying, root)
    return found | {name: user for name, user in by_path.items() if name in gone}


def prune(
    store: Store, chosen: Sequence[StageRun], *, is_dry: bool, root: Path | None = None
) -> Pruned:
    """Remove these runs with their trajectories, and what nothing names any more.

    Args:
        store: From where.
        chosen: What `choose` gave; none sweeps out tasks and pictures alone.
        is_dry: Only tell what would be removed.
        root: ``CODEDANCE_DIR``, whose stages' locks tell what is at work. None: not asked.

    Raises:
        StoreError: One of them may be at work, or a row that stays cannot be read; nothing is
            removed.
    """
    ids = [run.id for run in chosen]
    with ExitStack() as held, store.images.exclusive() as is_alone:
        if root is not None:
            for run in _to_hold(store.lineage, chosen):
                _hold(held, run, root / "stages" / run.id, is_dry=is_dry)
        busy = [run.id for run in chosen if run.status == "running"]
        if busy and not is_alone:
            raise StoreError(
                f"{busy[0]} is marked as running and somebody writes to the store: try again "
                "when it has ended"
            )
        left = _remove(store, ids, with_tasks=is_alone, is_dry=is_dry)
        if not is_alone:
            return Pruned(tuple(ids), left.trajectories, None, None, 0)
        waste = _waste(store, left.used)
        size = sum(path.stat().st_size for path in waste)
        if not is_dry:
            for path in waste:
                path.unlink(missing_ok=True)
    return Pruned(tuple(ids), left.trajectories, left.tasks, len(waste), size)


def _to_hold(lineage: Lineage, chosen: Sequence[StageRun]) -> list[StageRun]:
    """Return the stage runs that nobody may be at work on while others are removed.

    Those are the chosen ones and the stages of chosen pipeline runs: also a stage that a pipeline
    run which is marked as running may have taken up from another one.
    """
    everyone = lineage.find()
    ids = {run.id for run in chosen}
    running = {run.id for run in everyone if run.stage == PIPELINE and run.status == "running"}
    return [
        run
        for run in everyone
        if run.id in ids
        or run.parent in ids
        or (running & ids and run.status == "running" and run.parent not in running)
    ]


def _hold(held: ExitStack, run: StageRun, folder: Path, *, is_dry: bool) -> None:
    """Hold a stage's lock until ``held`` ends; nobody takes up a complete one, so it is let go.

    Raises:
        StoreError: A process is at work on it.
    """
    if not folder.is_dir():
        return
    with ExitStack() as once:
        is_ours = (once if run.is_complete else held).enter_context(alone_in(folder, is_dry=is_dry))
    if not is_ours:
        raise StoreError(f"{run.id} is at work: try again when it has ended")


def _remove(store: Store, runs: Sequence[str], *, with_tasks: bool, is_dry: bool) -> _Left:
    """Remove rows, or find out in a transaction that is taken back what that would do."""

    def work(session: Session) -> _Left:
        count = _remove_runs(session, runs)
        tasks = _remove_tasks(session) if with_tasks else 0
        left = _Left(count, tasks, _used(session) if with_tasks else set())
        if is_dry:
            raise _DryRun(left)
        return left

    try:
        return store.database.run(work)
    except _DryRun as dry:
        return dry.left


def _remove_runs(session: Session, runs: Sequence[str]) -> int:
    chosen = TrajectoryRow.stage_run.in_(runs)
    count = session.scalar(select(func.count()).select_from(TrajectoryRow).where(chosen)) or 0
    session.execute(delete(TrajectoryRow).where(chosen))
    session.execute(delete(CurationRow).where(CurationRow.stage_run.in_(runs)))
    session.execute(update(LineageRow).where(LineageRow.parent.in_(runs)).values(parent=None))
    session.execute(delete(LineageRow).where(LineageRow.id.in_(runs)))
    return count


def _remove_tasks(session: Session) -> int:
    unnamed = (
        ~select(TrajectoryRow.id).where(TrajectoryRow.task_key == TaskRow.key).exists(),
        ~select(CurationRow.task_key).where(CurationRow.task_key == TaskRow.key).exists(),
    )
    count = session.scalar(select(func.count()).select_from(TaskRow).where(*unnamed)) or 0
    session.execute(delete(TaskRow).where(*unnamed).execution_options(synchronize_session=False))
    return count


def _used(session: Session) -> set[str]:
    """Return the digests of all pictures that rows name.

    Raises:
        StoreError: A row cannot be read, so nobody knows which pictures it names.
    """
    try:
        return set(pictures_of(_naming(session)))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"a row that names pictures cannot be read ({error}), so nothing is removed: "
            "`codedance store verify` names its trajectory or task; prune the run it belongs to"
        ) from error


def _naming(session: Session) -> Iterable[dict[str, object]]:
    """Yield the columns of all rows that name pictures."""
    for column in (TaskRow.images, TrajectoryRow.opening, TurnRow.reply, ExecutionRow.images):
        for value in session.scalars(select(column).execution_options(yield_per=1000)):
            yield {column.key: value}


def _waste(store: Store, used: Collection[str]) -> list[Path]:
    """Return the files of pictures that nothing names, and of those never written to their end."""
    images = store.images
    waste = [images.path(digest) for digest in images.digests() if digest not in used]
    oldest = time.time() - _STALE_SECONDS
    parts = images.root.glob("??/*.part")
    return [*waste, *(path for path in parts if path.stat().st_mtime < oldest)]
