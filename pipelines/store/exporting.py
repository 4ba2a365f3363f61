"""Writes runs into a folder that any program reads: JSON lines, and the pictures as PNG files.

run.json             the runs, as the lineage has them, and the version of this format
tasks.jsonl          a task a line
trajectories.jsonl   a trajectory a line: messages, code, what came of it, rewards, tokens
images/DIGEST.png    the pictures that they name
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from .errors import StoreUsageError
from .lineage import StageRun
from .rows import unpack_tokens
from .schema import ExecutionRow, ScoreRow, TaskRow, TrajectoryRow, TurnRow
from .store import Store
from .verify import pictures_of, plain_rows
from .writing import batches

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written where."""

    folder: Path
    trajectories: int
    tasks: int
    pictures: int


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
        StoreError: A picture is missing or was changed.
    """
    if folder.exists():
        raise StoreUsageError(f"{folder} is there already: name a folder that is not, or remove it")
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "images").mkdir(parents=True)
    try:
        exported = _Export(store, part, with_tokens=with_tokens, told=told).write(runs)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Exported(folder, *exported)


def read_whole(store: Store, number: int) -> dict[str, Any]:
    """Give a trajectory as an export has it, its task under ``task``.

    Raises:
        StoreUsageError: There is none of this number.
    """
    found = store.database.run(lambda session: _trajectories(session, [number]))
    if not found:
        raise StoreUsageError(
            f"there is no trajectory {number}; `codedance store show RUN` names some"
        )
    (entry,) = found
    (task,) = store.database.run(lambda session: _tasks(session, [entry["task_key"]]))
    packed = entry.pop("tokens")
    tokens = None if packed is None else asdict(unpack_tokens(packed))
    return {**entry, "tokens": tokens, "task": task}


class _Export:
    """Writes into a folder, and knows which pictures it needs."""

    def __init__(
        self, store: Store, folder: Path, *, with_tokens: bool, told: Callable[[int], None]
    ) -> None:
        self._store, self._folder = store, folder
        self._with_tokens, self._told = with_tokens, told
        self._pictures: set[str] = set()

    def write(self, runs: Sequence[StageRun]) -> tuple[int, int, int]:
        """Write everything; give how many trajectories, tasks and pictures."""
        content = {"format": FORMAT, "runs": [asdict(run) for run in runs]}
        text = json.dumps(content, indent=1, default=str, ensure_ascii=False)
        (self._folder / "run.json").write_text(text + "\n", encoding="utf-8")
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
        return len(ids), len(keys), len(self._pictures)

    def _read(self, work: Callable[[Session, Any], list[Any]], which: Any) -> list[Any]:  # noqa: ANN401
        return self._store.database.run(lambda session: work(session, which))

    def _with_plain_tokens(self, entry: dict[str, Any]) -> dict[str, Any]:
        packed = entry.pop("tokens")
        if self._with_tokens:
            entry["tokens"] = None if packed is None else asdict(unpack_tokens(packed))
        return entry

    def _write_line(self, file: IO[str], entry: Mapping[str, Any]) -> None:
        """Write a line, after the pictures that it names."""
        runs = [turn["execution"] for turn in entry.get("turns", ()) if turn["execution"]]
        for digest in pictures_of([entry, *entry.get("turns", ()), *runs]):
            if digest not in self._pictures:
                self._store.images.check(digest)
                source = self._store.images.path(digest)
                shutil.copyfile(source, self._folder / "images" / source.name)
                self._pictures.add(digest)
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")


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
