"""Exports runs to a folder that any program can read: JSON Lines, and the images as PNG files.

run.json             the runs as in the lineage, what is broken, the version of this format
tasks.jsonl          one task per line
trajectories.jsonl   one trajectory per line: messages, code, its results, rewards, tokens
images/DIGEST.png    the images that they name

Images that are missing or were changed, tokens that cannot be unpacked, and trajectories, tasks
and runs with an unreadable row are left out and named; the rest is written.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from sqlalchemy import select

from ..store.connection.errors import FULL, StoreError, StoreFullError, StoreUsageError
from ..store.findings import Finding
from ..store.lineage import StageRun, UnreadableRunError
from ..store.readable import pictures_of, read_rows
from ..store.rows import unpack_tokens
from ..store.schema import ExecutionRow, ScoreRow, TaskRow, TrajectoryRow, TurnRow
from ..store.store import Store
from ..store.writing import batches

_LARGEST_NUMBER = 2**63 - 1  # largest row number in any database

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Exported:
    """Result of an export.

    Attributes:
        folder: Folder of the export.
        trajectories: Number of trajectories written.
        tasks: Number of tasks written.
        pictures: Number of images written.
        broken: What could not be copied, each with the problem and what refers to it.
    """

    folder: Path
    trajectories: int
    tasks: int
    pictures: int
    broken: tuple[Finding, ...] = ()


def with_stages(store: Store, names: Sequence[str]) -> tuple[list[StageRun], list[Finding]]:
    """Return runs by name, pipeline runs with their stage runs, and the unreadable ones.

    Raises:
        UnknownRunError: A name does not identify a single run.
    """
    runs: dict[str, StageRun] = {}
    broken: dict[str, Finding] = {}

    def get(name: str) -> list[StageRun]:
        try:
            return [store.lineage.get(name)]
        except UnreadableRunError as error:
            broken.update({one.name: one for one in error.findings})
            return []

    for name in names:
        for run in get(name):
            theirs, unread = store.lineage.find_readable(parent=run.id)
            broken |= {one.name: one for one in unread}
            adopted = [one for stage in run.stage_runs.values() for one in get(stage)]
            runs |= {one.id: one for one in (run, *reversed(theirs), *adopted)}
    return list(runs.values()), list(broken.values())


def export(
    store: Store,
    runs: Sequence[StageRun],
    folder: Path,
    *,
    broken: Sequence[Finding] = (),
    with_tokens: bool = True,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Export runs with all their trajectories; the folder appears when it is complete.

    Args:
        store: Store to export from.
        runs: Runs to export.
        folder: Target folder, which must not exist yet.
        broken: Runs that belong to the export and cannot be read.
        with_tokens: Whether to export token ids and log-probabilities.
        on_progress: Called with the number of trajectories written since the last call.

    Raises:
        StoreUsageError: The folder exists already.
        StoreFullError: The disk is full.
    """
    if folder.exists():
        raise StoreUsageError(f"{folder} exists already: name a new folder, or remove it")
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "images").mkdir(parents=True)
    try:
        work = _Export(store, part, with_tokens=with_tokens, on_progress=on_progress)
        work.note(broken)
        exported = work.write(runs)
        part.rename(folder)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise StoreFullError(folder.parent) from error
        raise
    return replace(exported, folder=folder)


def read_whole(store: Store, number: int) -> dict[str, Any]:
    """Return a trajectory in the export's format, its task under ``task``.

    Raises:
        StoreUsageError: No trajectory has this number.
        StoreError: One of its rows cannot be read, or its task is missing.
    """
    found, broken = _trajectories(store, [number] if number <= _LARGEST_NUMBER else [])
    if not found and not broken:
        raise StoreUsageError(f"there is no trajectory {number}; {_where_numbers_are(store)}")
    tasks: list[dict[str, Any]] = []
    if found:
        tasks, unread = _tasks(store, {found[0]["task_key"]: number})
        broken += unread
    if broken:
        raise StoreError(
            f"trajectory {number} cannot be shown: {broken[0].kind} {broken[0].name}: "
            f"{broken[0].problem} (`codedance store verify` names all damage)"
        )
    (entry,), (task,) = found, tasks
    return {**entry, "tokens": _plain_tokens(entry.pop("tokens")), "task": task}


def _where_numbers_are(store: Store) -> str:
    """Return a hint at the command that lists the numbers of existing trajectories."""
    query = select(TrajectoryRow.stage_run).order_by(TrajectoryRow.id.desc()).limit(1)
    newest = store.database.run(lambda session: session.scalar(query))
    if newest is None:
        return "the store has none yet: `codedance run` records some"
    return f"`codedance store show {newest}` lists numbers of existing ones"


class _Export:
    """Writes to a folder, and records which images it needs."""

    def __init__(
        self, store: Store, folder: Path, *, with_tokens: bool, on_progress: Callable[[int], None]
    ) -> None:
        self._store, self._folder = store, folder
        self._with_tokens, self._on_progress = with_tokens, on_progress
        self._pictures: set[str] = set()
        self._broken: dict[str, Finding] = {}

    def note(self, broken: Iterable[Finding]) -> None:
        """Record what cannot be copied."""
        for one in broken:
            self._broken.setdefault(f"{one.kind} {one.name}", one)

    def write(self, runs: Sequence[StageRun]) -> Exported:
        """Write everything that is available; return what was written and what was broken."""
        ids = _ids_of(self._store, [run.id for run in runs])
        users: dict[str, int] = {}
        trajectories = tasks = 0
        with (self._folder / "trajectories.jsonl").open("w", encoding="utf-8") as file:
            for some in batches(ids):
                entries, broken = _trajectories(self._store, some)
                self.note(broken)
                for entry in entries:
                    self._write_line(file, self._with_plain_tokens(entry))
                    users.setdefault(entry["task_key"], entry["id"])
                trajectories += len(entries)
                self._on_progress(len(some))
        with (self._folder / "tasks.jsonl").open("w", encoding="utf-8") as file:
            for some in batches(list(users)):
                entries, broken = _tasks(self._store, {key: users[key] for key in some})
                self.note(broken)
                for entry in entries:
                    self._write_line(file, entry)
                tasks += len(entries)
        found = tuple(self._broken.values())
        content = {
            "format": FORMAT,
            "runs": [asdict(run) for run in runs],
            "broken": [asdict(one) for one in found],
        }
        text = json.dumps(content, indent=1, default=str, ensure_ascii=False)
        (self._folder / "run.json").write_text(text + "\n", encoding="utf-8")
        return Exported(self._folder, trajectories, tasks, len(self._pictures), found)

    def _with_plain_tokens(self, entry: dict[str, Any]) -> dict[str, Any]:
        packed = entry.pop("tokens")
        if self._with_tokens:
            entry["tokens"] = tokens = _plain_tokens(packed)
            if packed is not None and tokens is None:
                name = f"trajectory {entry['id']}"
                self.note([Finding("tokens", name, "they cannot be unpacked")])
        return entry

    def _write_line(self, file: IO[str], entry: Mapping[str, Any]) -> None:
        """Write a line, after the images that it names."""
        runs = [turn["execution"] for turn in entry.get("turns", ()) if turn["execution"]]
        user = f"trajectory {entry['id']}" if "turns" in entry else f"task {entry['task_id']}"
        for digest in pictures_of([entry, *entry.get("turns", ()), *runs]):
            if digest not in self._pictures and f"picture {digest}" not in self._broken:
                self._copy_picture(digest, user)
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _copy_picture(self, digest: str, user: str) -> None:
        """Copy an image, or record that it is not available and what refers to it."""
        images = self._store.images
        try:
            images.check(digest)
        except StoreError as error:
            self.note([Finding("picture", digest, f"{error}; {user} shows it")])
            return
        source = images.path(digest)
        shutil.copyfile(source, self._folder / "images" / source.name)
        self._pictures.add(digest)


def _plain_tokens(packed: bytes | None) -> dict[str, Any] | None:
    """Unpack tokens; return None if there are none, or they are damaged."""
    if packed is None:
        return None
    try:
        return asdict(unpack_tokens(packed))
    except (zlib.error, ValueError):
        return None


def _ids_of(store: Store, runs: Sequence[str]) -> list[int]:
    query = select(TrajectoryRow.id).where(TrajectoryRow.stage_run.in_(runs))
    return store.database.run(
        lambda session: list(session.scalars(query.order_by(TrajectoryRow.id)))
    )


def _tasks(store: Store, users: Mapping[str, int]) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Return tasks, and the missing or unreadable ones.

    Args:
        store: Store with the tasks.
        users: Task keys, each with a trajectory that names it.
    """
    rows, unread = read_rows(store.database, TaskRow, TaskRow.key.in_(list(users)))
    there = {row["key"] for row in rows} | {one.key[0] for one in unread}
    missing = [
        Finding("task", key, f"it is not there; trajectory {user} names it")
        for key, user in users.items()
        if key not in there
    ]
    return rows, [one.finding for one in unread] + missing


def _trajectories(store: Store, ids: Sequence[int]) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Return trajectories with their turns, executions and scores, and the unreadable rows."""
    database = store.database
    heads, unread = read_rows(database, TrajectoryRow, TrajectoryRow.id.in_(ids))
    executions, more = read_rows(database, ExecutionRow, ExecutionRow.trajectory.in_(ids))
    unread += more
    turns, more = read_rows(database, TurnRow, TurnRow.trajectory.in_(ids))
    unread += more
    scores, more = read_rows(database, ScoreRow, ScoreRow.trajectory.in_(ids))
    unread += more
    damaged = {one.key[0] for one in unread}
    found: dict[int, dict[str, Any]] = {
        head["id"]: {**head, "turns": [], "scores": {}}
        for head in heads
        if head["id"] not in damaged
    }
    runs = {(run.pop("trajectory"), run.pop("number")): run for run in executions}
    for turn in turns:
        owner, number = turn.pop("trajectory"), turn.pop("number")
        if owner in found:
            found[owner]["turns"].append({**turn, "execution": runs.get((owner, number))})
    for score in scores:
        if score["trajectory"] in found:
            terms = found[score["trajectory"]]["scores"].setdefault(score["scoring"], {})
            terms[score["term"]] = score["value"]
    return list(found.values()), [one.finding for one in unread]
