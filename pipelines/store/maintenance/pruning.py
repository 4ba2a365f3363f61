"""Remove runs that are not needed, and then tasks and images that no row names.

A run that another one reads is kept unless that one is removed, too, and no run is removed while a
process works on it. Tasks and images are removed only while there is no writer, because a writer's
new ones are named by no row yet.
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

from ...config.home import Home
from ..claims import claimed_work, holder_of
from ..connection.errors import StoreError, StoreUsageError
from ..lineage import PIPELINE, Lineage, StageRun
from ..readable import pictures_of
from ..schema import CurationRow, ExecutionRow, LineageRow, TaskRow, TrajectoryRow, TurnRow
from ..store import Store
from .checkpoints import alone_in, users_of

_STALE_SECONDS = 3600.0
"""Age from which a partially written image file is treated as abandoned."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        runs: Ids of the runs.
        trajectories: Number of trajectories.
        tasks: Number of tasks that no row named any more; None if there was a writer.
        pictures: Number of images; None if there was a writer.
        picture_bytes: Size of those images, in bytes.
    """

    runs: tuple[str, ...]
    trajectories: int
    tasks: int | None
    pictures: int | None
    picture_bytes: int


@dataclass(frozen=True, slots=True)
class _Left:
    """Counts of removed rows, and the images that the remaining rows name."""

    trajectories: int
    tasks: int
    used: set[str]


class _DryRun(Exception):  # noqa: N818 - no error: it rolls the transaction back
    """Carries the results of a dry run out of its transaction, which is rolled back."""

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
    """Return the runs to remove: the named ones with their stage runs, and old ones.

    Args:
        lineage: All runs of the store.
        named: Runs to remove; the stage runs that a pipeline run made are removed with it, unless
            other runs read them.
        begun_before: Start time, in UTC, before which other runs are removed, too, unless other
            runs read them; None for no others.
        root: ``CODEDANCE_DIR``, so that a run also counts as read if another run names the path of
            its model. None: only runs that are named by their ids count.

    Raises:
        StoreUsageError: A named run is read by a remaining one.
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
    """Return the runs in ``gone`` that a remaining run reads, each with the id of its reader."""
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
    """Remove runs with their trajectories, and the tasks and images that no row names any more.

    Args:
        store: The store.
        chosen: Runs returned by `choose`; if empty, only tasks and images are removed.
        is_dry: Whether to report what would be removed without removing it.
        root: ``CODEDANCE_DIR``, whose stages' locks show which are in use; None to skip this check.

    Raises:
        StoreError: One of the runs may be in use, or a remaining row cannot be read; nothing is
            removed.
    """
    ids = [run.id for run in chosen]
    with ExitStack() as stack, store.images.exclusive() as is_alone:
        if root is not None:
            for run in _to_hold(store.lineage, chosen):
                _hold(stack, run, Home(root).stages / run.id, is_dry=is_dry)
        for run in chosen:
            if holder := holder_of(store.database, claimed_work(run.stage, run.key)):
                raise StoreError(f"{holder} works on {run.id}: try again when it has ended")
        busy = [run.id for run in chosen if run.status == "running"]
        if busy and not is_alone:
            raise StoreError(
                f"{busy[0]} is marked as running and another process is writing to the store: try "
                "again when it has ended"
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
    """Return the stage runs that must not be in use while the chosen ones are removed.

    These are the chosen runs and the stages of chosen pipeline runs, including a stage of another
    run that a chosen pipeline run, marked as running, may have resumed.
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


def _hold(stack: ExitStack, run: StageRun, folder: Path, *, is_dry: bool) -> None:
    """Hold a stage's lock until ``stack`` is closed; release that of a complete run at once.

    A complete run is never resumed.

    Raises:
        StoreError: Another process is using the stage run.
    """
    if not folder.is_dir():
        return
    with ExitStack() as once:
        is_ours = (once if run.is_complete else stack).enter_context(
            alone_in(folder, is_dry=is_dry)
        )
    if not is_ours:
        raise StoreError(f"{run.id} is in use by another process: try again when it has ended")


def _remove(store: Store, runs: Sequence[str], *, with_tasks: bool, is_dry: bool) -> _Left:
    """Remove rows; for a dry run, in a transaction that is rolled back."""

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
    """Return the digests of all images that rows name.

    Raises:
        StoreError: A row cannot be read, and the images that it names are unknown.
    """
    try:
        return set(pictures_of(_naming(session)))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"a row that names images cannot be read ({error}), so nothing is removed: "
            "`codedance store verify` names its trajectory or task; prune the run it belongs to"
        ) from error


def _naming(session: Session) -> Iterable[dict[str, object]]:
    """Yield the columns of all rows that name images."""
    for column in (TaskRow.images, TrajectoryRow.opening, TurnRow.reply, ExecutionRow.images):
        for value in session.scalars(select(column).execution_options(yield_per=1000)):
            yield {column.key: value}


def _waste(store: Store, used: Collection[str]) -> list[Path]:
    """Return the files of images that no row names, and abandoned partial files."""
    images = store.images
    waste = [images.path(digest) for digest in images.digests() if digest not in used]
    oldest = time.time() - _STALE_SECONDS
    parts = images.root.glob("??/*.part")
    return [*waste, *(path for path in parts if path.stat().st_mtime < oldest)]
