"""Check every digest of a store, images, rows and checkpoints, and the consistency of rows.

Nothing is changed. Problems are returned as findings, each with the thing that it is about.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..connection.errors import StoreError
from ..digests import row_digest, trajectory_digest, verdict_digest
from ..findings import Verdict
from ..readable import pictures_of, read_rows
from ..rows import task_key
from ..schema import ExecutionRow, ScoreRow, TaskRow, TrajectoryRow, TurnRow
from ..store import Store
from ..writing import batches
from .run_checks import check_runs

OnProgress = Callable[[str, int], None]
"""Callback with the kind that is being checked and the number checked so far."""


def verify(store: Store, on_progress: OnProgress = lambda *_: None) -> Verdict:
    """Check the whole content of a store.

    Raises:
        StoreError: The database cannot be read at all.
    """
    begun, verdict = time.monotonic(), Verdict()
    used: defaultdict[str, str] = defaultdict(str)
    _check_database(store, verdict)
    check_runs(store, verdict, on_progress)
    _check_tasks(store, verdict, used, on_progress)
    _check_trajectories(store, verdict, used, on_progress)
    _check_pictures(store, verdict, used, on_progress)
    verdict.seconds = time.monotonic() - begun
    return verdict


def _check_database(store: Store, verdict: Verdict) -> None:
    """Run SQLite's own integrity checks; a server does so itself."""
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


def _check_tasks(
    store: Store, verdict: Verdict, used: dict[str, str], on_progress: OnProgress
) -> None:
    keys = store.database.run(lambda session: list(session.scalars(select(TaskRow.key))))
    for batch in batches(keys):
        rows, unread = read_rows(store.database, TaskRow, TaskRow.key.in_(batch))
        verdict.extend(one.finding for one in unread)
        for row in rows:
            if task_key(row) != row["key"]:
                verdict.add("task", row["key"], "it was changed: its digest no longer matches")
            elif row["digest"] is None:
                verdict.note_unknown("tasks")
            elif row_digest(row) != row["digest"]:
                verdict.add("task", row["key"], "its row was changed: its digest no longer matches")
            used.update(dict.fromkeys(pictures_of([row]), f"task {row['task_id']}"))
        on_progress("tasks", verdict.count("tasks", len(rows) + len(unread)))


def _check_trajectories(
    store: Store, verdict: Verdict, used: dict[str, str], on_progress: OnProgress
) -> None:
    t = TrajectoryRow
    ids = store.database.run(lambda session: list(session.scalars(select(t.id).order_by(t.id))))
    for batch in batches(ids):
        heads, broken_heads = read_rows(store.database, t, t.id.in_(batch))
        turns, broken_turns = read_rows(store.database, TurnRow, TurnRow.trajectory.in_(batch))
        runs, broken_runs = read_rows(
            store.database, ExecutionRow, ExecutionRow.trajectory.in_(batch)
        )
        scores, broken_scores = read_rows(store.database, ScoreRow, ScoreRow.trajectory.in_(batch))
        for unread in (broken_heads, broken_turns, broken_runs, broken_scores):
            verdict.extend(one.finding for one in unread)
        damaged = {one.key[0] for one in (*broken_turns, *broken_runs)}
        unscored = {one.key[0] for one in broken_scores}
        own_turns, own_runs, own_scores = map(_grouped, (turns, runs, scores))
        for head in heads:
            number = head["id"]
            own = own_turns[number], own_runs[number]
            if number not in unscored:
                _check_verdict(head, own_scores[number], verdict)
            if number not in damaged:
                _check_trajectory(head, *own, verdict)
            name = f"trajectory {number}"
            used.update(dict.fromkeys(pictures_of([head, *own[0], *own[1]]), name))
        on_progress("trajectories", verdict.count("trajectories", len(batch)))


def _check_verdict(
    head: Mapping[str, Any], scores: Iterable[Mapping[str, Any]], verdict: Verdict
) -> None:
    terms = [(score["scoring"], score["term"], score["value"]) for score in scores]
    if head["verdict_digest"] is None:
        verdict.note_unknown("verdicts")
    elif verdict_digest(head["accuracy"], terms) != head["verdict_digest"]:
        problem = "its accuracy or scores were changed: their digest no longer matches"
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
        verdict.add("trajectory", head["id"], "it was changed: its digest no longer matches")
    if [turn["number"] for turn in turns] != list(range(len(turns))):
        verdict.add("trajectory", head["id"], "it lacks a turn")
    if not {run["number"] for run in runs} <= {turn["number"] for turn in turns}:
        verdict.add("trajectory", head["id"], "an execution belongs to no turn")


def _check_pictures(
    store: Store, verdict: Verdict, used: Mapping[str, str], on_progress: OnProgress
) -> None:
    """Check the pixels of every image, those that rows name and those that none names."""
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
                on_progress("pictures", verdict.checked["pictures"])
            if problem:
                user = f"; {used[digest]} shows it" if digest in used else "; nothing shows it"
                verdict.add("picture", digest, problem + user)


def _grouped(rows: Iterable[dict[str, Any]]) -> defaultdict[int, list[dict[str, Any]]]:
    groups: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["trajectory"]].append(row)
    return groups
