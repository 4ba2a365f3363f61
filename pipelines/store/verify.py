"""Checks every digest of a store: pictures, tasks, trajectories, stage runs, and that rows fit.

Nothing is changed. What is wrong is told as findings, each with the thing that it is about.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from .digests import trajectory_digest
from .errors import StoreError
from .lineage import StageRequest
from .rows import task_key
from .schema import Base, ExecutionRow, LineageRow, TaskRow, TrajectoryRow, TurnRow
from .store import Store
from .writing import batches

MOST_TOLD = 1000
"""Findings kept; more are only counted."""

Told = Callable[[str, int], None]
"""Told what is being checked, and how many of it are done."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: ``picture``, ``task``, ``trajectory``, ``run``, ``database``.
        name: Digest, key, number or id.
        problem: What is wrong with it.
    """

    kind: str
    name: str
    problem: str


@dataclass(slots=True)
class Verdict:
    """What a check found.

    Attributes:
        checked: How many of each kind were looked at.
        findings: What is wrong, the first thousand.
        wrong: How much is wrong in all.
        unsealed: Trajectories from before digests were kept: nothing to hold them against.
        unused: Pictures that no row names; `codedance store prune` removes them.
        seconds: How long it took.
    """

    checked: dict[str, int] = field(default_factory=dict[str, int])
    findings: list[Finding] = field(default_factory=list[Finding])
    wrong: int = 0
    unsealed: int = 0
    unused: int = 0
    seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.wrong == 0

    def count(self, kind: str, more: int = 1) -> int:
        """Note that more of a kind were looked at; give how many now."""
        self.checked[kind] = self.checked.get(kind, 0) + more
        return self.checked[kind]

    def add(self, kind: str, name: object, problem: str) -> None:
        """Note that something is wrong."""
        self.wrong += 1
        if len(self.findings) < MOST_TOLD:
            self.findings.append(Finding(kind, str(name), problem))


def verify(store: Store, told: Told = lambda *_: None) -> Verdict:
    """Check everything that a store holds.

    Raises:
        StoreError: The database cannot be read at all.
    """
    begun, verdict = time.monotonic(), Verdict()
    used: defaultdict[str, str] = defaultdict(str)
    _check_database(store, verdict)
    _check_runs(store, verdict)
    _check_tasks(store, verdict, used, told)
    _check_trajectories(store, verdict, used, told)
    _check_pictures(store, verdict, used, told)
    verdict.seconds = time.monotonic() - begun
    return verdict


def pictures_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Give the digests of the pictures that rows of any table name."""
    for row in rows:
        yield from row.get("images") or ()
        messages = [*(row.get("opening") or ()), *filter(None, [row.get("reply")])]
        for message in messages:
            yield from (part["image"] for part in message["parts"] if "image" in part)


def plain_rows(session: Session, table: type[Base], *where: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Give rows as plain values, in the order of their keys."""
    columns = table.__table__.columns
    query = select(*columns).where(*where).order_by(*inspect(table).primary_key)
    return [dict(row) for row in session.execute(query).mappings()]


def _check_database(store: Store, verdict: Verdict) -> None:
    """Ask SQLite to check its own file; a server sees to that itself."""
    verdict.count("database")
    if not store.database.is_sqlite:
        return

    def work(session: Session) -> None:
        connection = session.connection()
        for (line,) in connection.exec_driver_sql("PRAGMA integrity_check(100)"):
            if line != "ok":
                verdict.add("database", store.database.address, line)
        for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            verdict.add("database", f"{table} {row}", f"belongs to no row of {parent}")

    store.database.run(work)


def _check_runs(store: Store, verdict: Verdict) -> None:
    rows = store.database.run(lambda session: plain_rows(session, LineageRow))
    verdict.count("runs", len(rows))
    for row in rows:
        request = StageRequest(
            row["stage"],
            row["preset"],
            row["parameters"],
            row["inputs"],
            row["seed"],
            row["code_version"],
        )
        if request.key != row["key"]:
            verdict.add("run", row["id"], "what it was told was changed: its key no longer fits")


def _check_tasks(store: Store, verdict: Verdict, used: dict[str, str], told: Told) -> None:
    keys = store.database.run(lambda session: list(session.scalars(select(TaskRow.key))))
    for batch in batches(keys):
        rows = _read(store, TaskRow, TaskRow.key.in_(batch))
        for row in rows:
            if task_key(row) != row["key"]:
                verdict.add("task", row["key"], "it was changed: its digest no longer fits")
            used.update(dict.fromkeys(pictures_of([row]), f"task {row['task_id']}"))
        told("tasks", verdict.count("tasks", len(rows)))


def _check_trajectories(store: Store, verdict: Verdict, used: dict[str, str], told: Told) -> None:
    ids = store.database.run(
        lambda session: list(session.scalars(select(TrajectoryRow.id).order_by(TrajectoryRow.id)))
    )
    for batch in batches(ids):
        heads = _read(store, TrajectoryRow, TrajectoryRow.id.in_(batch))
        turns = _grouped(_read(store, TurnRow, TurnRow.trajectory.in_(batch)))
        runs = _grouped(_read(store, ExecutionRow, ExecutionRow.trajectory.in_(batch)))
        for head in heads:
            own = turns[head["id"]], runs[head["id"]]
            _check_trajectory(head, *own, verdict)
            name = f"trajectory {head['id']}"
            used.update(dict.fromkeys(pictures_of([head, *own[0], *own[1]]), name))
        told("trajectories", verdict.count("trajectories", len(heads)))


def _check_trajectory(
    head: Mapping[str, Any],
    turns: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    verdict: Verdict,
) -> None:
    if head["digest"] is None:
        verdict.unsealed += 1
    elif trajectory_digest(head, turns, runs) != head["digest"]:
        verdict.add("trajectory", head["id"], "it was changed: its digest no longer fits")
    if [turn["number"] for turn in turns] != list(range(len(turns))):
        verdict.add("trajectory", head["id"], "it lacks a turn")
    if not {run["number"] for run in runs} <= {turn["number"] for turn in turns}:
        verdict.add("trajectory", head["id"], "an execution belongs to no turn")


def _check_pictures(store: Store, verdict: Verdict, used: Mapping[str, str], told: Told) -> None:
    """Hash the pixels of every picture, those that rows name and those that lie there besides."""
    present = set(store.images.digests())
    verdict.unused = len(present - used.keys())
    everything = sorted(present | used.keys())

    def problem_of(digest: str) -> str:
        try:
            store.images.check(digest)
        except StoreError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        for digest, problem in zip(everything, pool.map(problem_of, everything), strict=True):
            if verdict.count("pictures") % 500 == 0:
                told("pictures", verdict.checked["pictures"])
            if problem:
                user = f"; {used[digest]} shows it" if digest in used else "; nothing shows it"
                verdict.add("picture", digest, problem + user)


def _read(store: Store, table: type[Base], *where: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return store.database.run(lambda session: plain_rows(session, table, *where))


def _grouped(rows: Iterable[dict[str, Any]]) -> defaultdict[int, list[dict[str, Any]]]:
    groups: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["trajectory"]].append(row)
    return groups
