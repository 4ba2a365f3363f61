"""Checks every digest of a store: pictures, rows of every table, checkpoints, and that rows fit.

Nothing is changed. What is wrong is told as findings, each with the thing that it is about.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from .digests import content_digest, row_digest, trajectory_digest
from .errors import StoreError
from .lineage import StageRequest
from .rows import task_key
from .schema import (
    Base,
    CurationRow,
    ExecutionRow,
    LineageRow,
    SealRow,
    TaskRow,
    TrajectoryRow,
    TurnRow,
)
from .seals import (
    CURATION,
    MODEL,
    TRAJECTORIES,
    curation_content,
    model_problems,
    plain_rows,
    trajectories_content,
    verdict_digests,
)
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
        kind: ``picture``, ``task``, ``trajectory``, ``run``, ``model``, ``database``.
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
        unknown: What else is from before its kind had digests, counted by kind: nothing to hold
            it against either.
        unused: Pictures that no row names; `codedance store prune` removes them.
        seconds: How long it took.
    """

    checked: dict[str, int] = field(default_factory=dict[str, int])
    findings: list[Finding] = field(default_factory=list[Finding])
    wrong: int = 0
    unsealed: int = 0
    unknown: dict[str, int] = field(default_factory=dict[str, int])
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

    def note_unknown(self, kind: str) -> None:
        """Note that one of a kind has no digest."""
        self.unknown[kind] = self.unknown.get(kind, 0) + 1

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
    _check_seals(store, verdict, told)
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
        if row["digest"] is None:
            verdict.note_unknown("runs")
        elif row_digest(row) != row["digest"]:
            verdict.add("run", row["id"], "its row was changed: its digest no longer fits")


def _check_seals(store: Store, verdict: Verdict, told: Told) -> None:
    """Hold what stages left (decisions, trajectories, checkpoints) against their seals."""
    rows = {row["id"]: row for row in _read(store, LineageRow)}
    seals = {(row["stage_run"], row["kind"]): row for row in _read(store, SealRow)}
    for (run, kind), seal in seals.items():
        if content_digest(seal["content"]) != seal["digest"]:
            verdict.add("run", run, f"the seal of its {kind} was changed")
    _check_curations(store, seals, verdict)
    for run, row in rows.items():
        if row["status"] != "finished":
            continue  # at work: what it holds is not its last
        if (run, TRAJECTORIES) in seals:
            _check_count(store, run, seals[run, TRAJECTORIES]["content"], verdict)
        if (folder := row["outputs"].get("model")) is not None:
            _check_model(run, Path(str(folder)), seals.get((run, MODEL)), verdict)
            told("models", verdict.count("models"))


def _check_curations(
    store: Store, seals: Mapping[tuple[str, str], Mapping[str, Any]], verdict: Verdict
) -> None:
    curated = store.database.run(
        lambda session: set(session.scalars(select(CurationRow.stage_run).distinct()))
    )
    for run in sorted(curated | {run for run, kind in seals if kind == CURATION}):
        if (run, CURATION) not in seals:
            verdict.note_unknown("curations")
            continue
        found = store.database.run(lambda session, run=run: curation_content(session, run))
        if found != seals[run, CURATION]["content"]:
            verdict.add("run", run, "what its curation decided was changed")


def _check_count(store: Store, run: str, sealed: Mapping[str, Any], verdict: Verdict) -> None:
    found = store.database.run(lambda session: trajectories_content(session, run))
    if found["count"] != sealed["count"]:
        problem = f"it finished with {sealed['count']} trajectories, {found['count']} are there"
        verdict.add("run", run, problem)
    elif found != sealed:
        verdict.add("run", run, "its trajectories are no longer those that it finished with")


def _check_model(run: str, folder: Path, seal: Mapping[str, Any] | None, verdict: Verdict) -> None:
    if seal is None:
        verdict.note_unknown("models")
        return
    for name, problem in model_problems(folder, seal["content"]):
        verdict.add("model", name, f"{problem}; {run} made it")


def _check_tasks(store: Store, verdict: Verdict, used: dict[str, str], told: Told) -> None:
    keys = store.database.run(lambda session: list(session.scalars(select(TaskRow.key))))
    for batch in batches(keys):
        rows = _read(store, TaskRow, TaskRow.key.in_(batch))
        for row in rows:
            if task_key(row) != row["key"]:
                verdict.add("task", row["key"], "it was changed: its digest no longer fits")
            elif row["digest"] is None:
                verdict.note_unknown("tasks")
            elif row_digest(row) != row["digest"]:
                verdict.add("task", row["key"], "its row was changed: its digest no longer fits")
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
        judged = store.database.run(lambda session, batch=batch: verdict_digests(session, batch))
        for head in heads:
            _check_verdict(head, judged.get(head["id"]), verdict)
            own = turns[head["id"]], runs[head["id"]]
            _check_trajectory(head, *own, verdict)
            name = f"trajectory {head['id']}"
            used.update(dict.fromkeys(pictures_of([head, *own[0], *own[1]]), name))
        told("trajectories", verdict.count("trajectories", len(heads)))


def _check_verdict(head: Mapping[str, Any], judged: str | None, verdict: Verdict) -> None:
    if head["verdict_digest"] is None:
        verdict.note_unknown("verdicts")
    elif judged != head["verdict_digest"]:
        problem = "its accuracy or scores were changed: their digest no longer fits"
        verdict.add("trajectory", head["id"], problem)


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
