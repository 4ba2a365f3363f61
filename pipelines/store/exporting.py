"""Writes runs into a folder that any program reads: JSON lines, and the pictures as PNG files.

run.json             the runs, as the lineage has them, what is broken, the version of this format
tasks.jsonl          a task a line
trajectories.jsonl   a trajectory a line: messages, code, what came of it, rewards, tokens
images/DIGEST.png    the pictures that they name

A picture that is missing or was changed, and tokens that cannot be unpacked, are left out and
named; the rest is written.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from .errors import FULL, StoreError, StoreFullError, StoreUsageError
from .lineage import StageRun
from .rows import unpack_tokens
from .schema import ExecutionRow, ScoreRow, TaskRow, TrajectoryRow, TurnRow
from .seals import plain_rows
from .store import Store
from .verify import Finding, pictures_of
from .writing import batches

_LARGEST_NUMBER = 2**63 - 1  # of a row in any database

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written where.

    Attributes:
        folder: Where.
        trajectories: How many.
        tasks: How many.
        pictures: How many.
        broken: What could not be copied, each with what is wrong and what shows it.
    """

    folder: Path
    trajectories: int
    tasks: int
    pictures: int
    broken: tuple[Finding, ...] = ()


def export(
    store: Store,
    runs: Sequence[StageRun],
    folder: Path,
    *,
    with_tokens: bool = True,
    told: Callable[[int], None] = lambda _: None,
) -> Exported:
    """Write runs with all their trajectories; the folder appears when it is whole.

    Args:
        store: From where.
        runs: Which.
        folder: That must not exist yet.
        with_tokens: Whether token ids and log-probabilities go with them.
        told: Called with how many more trajectories are written.

    Raises:
        StoreUsageError: The folder is there already.
        StoreFullError: No room is left.
    """
    if folder.exists():
        raise StoreUsageError(f"{folder} is there already: name a folder that is not, or remove it")
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "images").mkdir(parents=True)
    try:
        exported = _Export(store, part, with_tokens=with_tokens, told=told).write(runs)
        part.rename(folder)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise StoreFullError(folder.parent) from error
        raise
    return replace(exported, folder=folder)


def read_whole(store: Store, number: int) -> dict[str, Any]:
    """Give a trajectory as an export has it, its task under ``task``.

    Raises:
        StoreUsageError: There is none of this number.
    """
    numbers = [number] if number <= _LARGEST_NUMBER else []
    found = store.database.run(lambda session: _trajectories(session, numbers))
    if not found:
        raise StoreUsageError(f"there is no trajectory {number}; {_where_numbers_are(store)}")
    (entry,) = found
    (task,) = store.database.run(lambda session: _tasks(session, [entry["task_key"]]))
    return {**entry, "tokens": _plain_tokens(entry.pop("tokens")), "task": task}


def _where_numbers_are(store: Store) -> str:
    """Say which command tells numbers of trajectories that are there."""
    query = select(TrajectoryRow.stage_run).order_by(TrajectoryRow.id.desc()).limit(1)
    newest = store.database.run(lambda session: session.scalar(query))
    if newest is None:
        return "the store holds none yet: `codedance run` makes some"
    return f"`codedance store show {newest}` tells numbers that there are"


class _Export:
    """Writes into a folder, and knows which pictures it needs."""

    def __init__(
        self, store: Store, folder: Path, *, with_tokens: bool, told: Callable[[int], None]
    ) -> None:
        self._store, self._folder = store, folder
        self._with_tokens, self._told = with_tokens, told
        self._pictures: set[str] = set()
        self._broken: dict[str, Finding] = {}

    def write(self, runs: Sequence[StageRun]) -> Exported:
        """Write everything that can be had; return what was written and what was broken."""
        ids = self._read(_ids_of, [run.id for run in runs])
        keys: dict[str, None] = {}
        with (self._folder / "trajectories.jsonl").open("w", encoding="utf-8") as file:
            for some in batches(ids):
                for entry in self._read(_trajectories, some):
                    self._write_line(file, self._with_plain_tokens(entry))
                    keys[entry["task_key"]] = None
                self._told(len(some))
        with (self._folder / "tasks.jsonl").open("w", encoding="utf-8") as file:
            for some in batches(list(keys)):
                for entry in self._read(_tasks, some):
                    self._write_line(file, entry)
        broken = tuple(self._broken.values())
        content = {
            "format": FORMAT,
            "runs": [asdict(run) for run in runs],
            "broken": [asdict(one) for one in broken],
        }
        text = json.dumps(content, indent=1, default=str, ensure_ascii=False)
        (self._folder / "run.json").write_text(text + "\n", encoding="utf-8")
        return Exported(self._folder, len(ids), len(keys), len(self._pictures), broken)

    def _read(self, work: Callable[[Session, Any], list[Any]], which: Any) -> list[Any]:  # noqa: ANN401
        return self._store.database.run(lambda session: work(session, which))

    def _with_plain_tokens(self, entry: dict[str, Any]) -> dict[str, Any]:
        packed = entry.pop("tokens")
        if self._with_tokens:
            entry["tokens"] = tokens = _plain_tokens(packed)
            if packed is not None and tokens is None:
                name = f"trajectory {entry['id']}"
                self._broken[name] = Finding("tokens", name, "they cannot be unpacked")
        return entry

    def _write_line(self, file: IO[str], entry: Mapping[str, Any]) -> None:
        """Write a line, after the pictures that it names."""
        runs = [turn["execution"] for turn in entry.get("turns", ()) if turn["execution"]]
        user = f"trajectory {entry['id']}" if "turns" in entry else f"task {entry['task_id']}"
        for digest in pictures_of([entry, *entry.get("turns", ()), *runs]):
            if digest not in self._pictures and digest not in self._broken:
                self._copy_picture(digest, user)
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _copy_picture(self, digest: str, user: str) -> None:
        """Copy a picture, or note that it cannot be had and who shows it."""
        images = self._store.images
        try:
            images.check(digest)
        except StoreError as error:
            self._broken[digest] = Finding("picture", digest, f"{error}; {user} shows it")
            return
        source = images.path(digest)
        shutil.copyfile(source, self._folder / "images" / source.name)
        self._pictures.add(digest)


def _plain_tokens(packed: bytes | None) -> dict[str, Any] | None:
    """Unpack tokens; None where there are none, or they are damaged."""
    if packed is None:
        return None
    try:
        return asdict(unpack_tokens(packed))
    except (zlib.error, ValueError):
        return None


def _ids_of(session: Session, runs: Sequence[str]) -> list[int]:
    chosen = TrajectoryRow.stage_run.in_(runs)
    return list(session.scalars(select(TrajectoryRow.id).where(chosen).order_by(TrajectoryRow.id)))


def _tasks(session: Session, keys: Sequence[str]) -> list[dict[str, Any]]:
    return plain_rows(session, TaskRow, TaskRow.key.in_(keys))


def _trajectories(session: Session, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Give trajectories with their turns, executions and scores in them."""
    heads = plain_rows(session, TrajectoryRow, TrajectoryRow.id.in_(ids))
    found: dict[int, dict[str, Any]] = {
        head["id"]: {**head, "turns": [], "scores": {}} for head in heads
    }
    runs: dict[tuple[int, int], dict[str, Any]] = {}
    for run in plain_rows(session, ExecutionRow, ExecutionRow.trajectory.in_(ids)):
        runs[run.pop("trajectory"), run.pop("number")] = run
    for turn in plain_rows(session, TurnRow, TurnRow.trajectory.in_(ids)):
        owner, number = turn.pop("trajectory"), turn.pop("number")
        found[owner]["turns"].append({**turn, "execution": runs.get((owner, number))})
    for score in plain_rows(session, ScoreRow, ScoreRow.trajectory.in_(ids)):
        terms = found[score["trajectory"]]["scores"].setdefault(score["scoring"], {})
        terms[score["term"]] = score["value"]
    return list(found.values())
