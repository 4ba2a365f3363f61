"""Frees what trainings leave on disk: folders of removed runs, orphans, stale states, checkpoints.

Kept is whatever a run needs: the final model of every run in the store, all that an unfinished run
resumes from, and the newest intermediate checkpoints. A folder is touched only while its lock is
ours, never through a link, and never outside ``CODEDANCE_DIR``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..file_lock import try_lock
from .lineage import Lineage, StageRun

LOCK = ".lock"
"""In a stage's folder: held by the process at work in it."""
STATE = "state"
_CHECKPOINT = re.compile(r"(?:checkpoint|step)[-_](\d+)")
_HALF_WRITTEN = re.compile(r".+\.new")


@dataclass(frozen=True, slots=True)
class Freed:
    """A folder that was removed, or would be.

    Attributes:
        path: Where it is.
        size_bytes: Of all files in it.
        reason: Why nothing needs it.
    """

    path: Path
    size_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found.

    Attributes:
        freed: What was removed, or would be.
        left: Why some folders were not looked at, a sentence each.
    """

    freed: tuple[Freed, ...]
    left: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of everything freed."""
        return sum(one.size_bytes for one in self.freed)


def sweep(
    lineage: Lineage,
    root: Path,
    *,
    removed: Collection[str] = (),
    keep: int = 1,
    is_dry: bool = True,
) -> Swept:
    """Remove from the stages' folders what no run needs.

    Args:
        lineage: The runs there are.
        root: ``CODEDANCE_DIR``; the stages' folders lie under ``stages``.
        removed: Ids of runs that go, or went: their folders go too.
        keep: Newest intermediate checkpoints to keep of each run.
        is_dry: Only tell what would be removed.
    """
    stages = root / "stages"
    if not stages.is_dir():
        return Swept(())
    if not stages.resolve().is_relative_to(root.resolve()):
        return Swept((), (f"{stages} leads out of {root}: nothing there is removed",))
    folders = [path for path in sorted(stages.iterdir()) if path.is_dir() and not path.is_symlink()]
    runs = {run.id: run for run in lineage.find()}  # read after the folders: rows come first
    left: list[str] = []
    orphans = [one.name for one in folders if one.name not in runs and one.name not in removed]
    if orphans and not runs and not removed:
        left.append(
            f"{len(orphans)} folders in {stages} are of no run, but the store knows no run at all: "
            "is it the right one (CODEDANCE_STORE_URL)? They stay"
        )
        orphans = []
    freed: list[Freed] = []
    for folder in folders:
        with _alone_in(folder, is_dry=is_dry) as is_alone:
            if not is_alone:
                left.append(f"{folder.name} is at work: it stays as it is")
                continue
            chosen = _waste(folder, runs, removed, orphans, keep)
            freed += [Freed(path, folder_bytes(path), reason) for path, reason in chosen]
            if not is_dry:
                for path, _ in chosen:
                    shutil.rmtree(path)
    return Swept(tuple(freed), tuple(left))


def users_of(runs: Iterable[StageRun], root: Path) -> dict[str, str]:
    """Return the stage runs whose files another run names, each with that one.

    A model that another run starts from, or judges, is named by its path among the parameters.
    """
    stages = (root / "stages").resolve()
    return {
        name: run.id
        for run in runs
        for text in _texts((run.parameters, run.outputs, run.inputs))
        if (name := _owner(text, stages)) is not None and name != run.id
    }


def folder_bytes(folder: Path) -> int:
    """Return the size of all files under a folder, links not followed."""
    return sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(folder)
        for name in names
    )


def _waste(
    folder: Path,
    runs: Mapping[str, StageRun],
    removed: Collection[str],
    orphans: Collection[str],
    keep: int,
) -> list[tuple[Path, str]]:
    """Return what of a stage's folder can go, with the reason."""
    if folder.name in removed:
        return [(folder, "its run is removed")]
    if folder.name in orphans:
        return [(folder, "no run is called so")]
    run = runs.get(folder.name)
    if run is None or run.status == "running":  # killed, it resumes from all that is there
        return []
    keep = keep if run.is_finished else max(keep, 1)
    inside = [path for path in sorted(folder.iterdir()) if _is_folder(path)]
    found = [(one, "half written") for one in inside if _HALF_WRITTEN.fullmatch(one.name)]
    found += [(one, f"older than the newest {keep}") for one in _older(inside, keep)]
    state = folder / STATE
    if run.is_finished and _is_folder(state):
        return [*found, (state, "its run is finished")]
    if _is_folder(state):
        states = [path for path in sorted(state.iterdir()) if _is_folder(path)]
        found += [(one, f"older than the newest {keep}") for one in _older(states, keep)]
    return found


def _older(folders: Sequence[Path], keep: int) -> list[Path]:
    """Return the intermediate checkpoints but for the newest ones, by their step."""
    steps = {path: int(m[1]) for path in folders if (m := _CHECKPOINT.fullmatch(path.name))}
    ordered = sorted(steps, key=lambda path: steps[path])
    return ordered[: max(len(ordered) - keep, 0)]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


@contextmanager
def _alone_in(folder: Path, *, is_dry: bool) -> Generator[bool]:
    """Hold a stage's lock; False where another process is at work in its folder."""
    lock = folder / LOCK
    if is_dry and not lock.is_file():  # a dry run leaves nothing behind
        yield True
        return
    with try_lock(lock) as is_ours:
        yield is_ours


def _owner(text: str, stages: Path) -> str | None:
    """Return in which stage run's folder a path lies."""
    if not text.startswith("/"):
        return None
    try:
        path = Path(text).resolve()
    except (OSError, ValueError):
        return None
    return path.relative_to(stages).parts[0] if stages in path.parents else None


def _texts(value: object) -> Iterator[str]:
    """Give every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in cast("Mapping[str, Any]", value).values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in cast("Sequence[Any]", value):
            yield from _texts(part)
