"""Free disk space of trainings: folders of removed runs, orphans, stale states, checkpoints.

Everything that a run needs is kept: the final model of every run in the store, all that an
unfinished run resumes from, and the newest intermediate checkpoints. A folder is changed only while
this process holds its lock, never through a link, and never outside ``CODEDANCE_DIR``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...concurrency.file_lock import try_lock
from ...config.home import Home
from ..lineage import Lineage, StageRun

LOCK = ".lock"
"""Lock file in a stage's folder, locked by the process that runs the stage."""
STATE = "state"
_CHECKPOINT = re.compile(r"(?:checkpoint|step)[-_](\d+)")
_HALF_WRITTEN = re.compile(r".+\.new")


@dataclass(frozen=True, slots=True)
class Freed:
    """A folder that was removed, or would be.

    Attributes:
        path: Path of the folder.
        size_bytes: Size of all files in it, in bytes.
        reason: Reason why it is not needed.
    """

    path: Path
    size_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Swept:
    """The results of a sweep.

    Attributes:
        freed: Folders that were removed, or would be.
        left: Reasons why some folders were skipped, one sentence each.
    """

    freed: tuple[Freed, ...]
    left: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Size of all freed folders, in bytes."""
        return sum(one.size_bytes for one in self.freed)


def sweep(
    lineage: Lineage,
    root: Path,
    *,
    removed: Collection[str] = (),
    keep: int = 1,
    is_dry: bool = True,
) -> Swept:
    """Remove everything from the stages' folders that no run needs.

    Args:
        lineage: All runs of the store.
        root: ``CODEDANCE_DIR``, which has the stages' folders unless ``CODEDANCE_STAGES`` names
            another place.
        removed: Ids of runs that are or were removed: their folders are removed, too.
        keep: Number of newest intermediate checkpoints to keep per run.
        is_dry: Whether to report what would be removed without removing it.
    """
    stages = Home(root).stages
    if not stages.is_dir():
        return Swept(())
    is_named = stages != root / "stages"
    if not is_named and not stages.resolve().is_relative_to(root.resolve()):
        return Swept((), (f"{stages} is outside {root}: nothing in it is removed",))
    folders = [path for path in sorted(stages.iterdir()) if path.is_dir() and not path.is_symlink()]
    runs = {run.id: run for run in lineage.find()}  # read after the folders: rows come first
    left: list[str] = []
    orphans = [one.name for one in folders if one.name not in runs and one.name not in removed]
    if orphans and not runs and not removed:
        left.append(
            f"{len(orphans)} folders in {stages} belong to no run, but the store has no runs: "
            "is it the right one (CODEDANCE_STORE_URL)? The folders are kept"
        )
        orphans = []
    needed = _needed(runs.values(), root, removed)
    freed: list[Freed] = []
    for folder in folders:
        with alone_in(folder, is_dry=is_dry) as is_alone:
            if not is_alone:
                left.append(f"{folder.name} is in use by another process: it is left unchanged")
                continue
            chosen = [
                (path, reason)
                for path, reason in _waste(folder, runs, removed, orphans, keep)
                if path.resolve() not in needed
            ]
            freed += [Freed(path, folder_bytes(path), reason) for path, reason in chosen]
            if not is_dry:
                for path, _ in chosen:
                    shutil.rmtree(path)
    return Swept(tuple(freed), tuple(left))


def users_of(runs: Iterable[StageRun], root: Path) -> dict[str, str]:
    """Return the stage runs whose files another run names, each with the id of that run.

    A run's parameters contain the path of a model that it starts from or evaluates.
    """
    stages = Home(root).stages.resolve()
    return {
        name: run.id
        for run in runs
        for path in _named_by(run, root)
        if stages in path.parents and (name := path.relative_to(stages).parts[0]) != run.id
    }


def folder_bytes(folder: Path) -> int:
    """Return the size of all files under a folder, in bytes; links are not followed."""
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
    """Return the parts of a stage's folder that can be removed, with reasons."""
    if folder.name in removed:
        return [(folder, "its run is removed")]
    if folder.name in orphans:
        return [(folder, "no run has this name")]
    run = runs.get(folder.name)
    if run is None or run.status == "running":  # if killed, it resumes from all of its state
        return []
    keep = keep if run.is_finished else max(keep, 1)
    inside = [path for path in sorted(folder.iterdir()) if _is_folder(path)]
    found = [(one, "partially written") for one in inside if _HALF_WRITTEN.fullmatch(one.name)]
    found += [(one, f"older than the newest {keep}") for one in _older(inside, keep)]
    state = folder / STATE
    if run.is_finished and _is_folder(state):
        return [*found, (state, "its run is finished")]
    if _is_folder(state):
        states = [path for path in sorted(state.iterdir()) if _is_folder(path)]
        found += [(one, f"older than the newest {keep}") for one in _older(states, keep)]
    return found


def _older(folders: Sequence[Path], keep: int) -> list[Path]:
    """Return all intermediate checkpoints except the newest ``keep``, ordered by step."""
    steps = {path: int(m[1]) for path in folders if (m := _CHECKPOINT.fullmatch(path.name))}
    ordered = sorted(steps, key=lambda path: steps[path])
    return ordered[: max(len(ordered) - keep, 0)]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


@contextmanager
def alone_in(folder: Path, *, is_dry: bool) -> Generator[bool]:
    """Hold a stage's lock; yield False where another process has it or it cannot be acquired."""
    lock = folder / LOCK
    if is_dry and not os.path.lexists(lock):  # a dry run creates no files
        yield True
        return
    with ExitStack() as stack:
        is_ours = False
        if not lock.is_symlink():  # a link may lead anywhere
            try:
                is_ours = stack.enter_context(try_lock(lock))
            except OSError:
                is_ours = False
        yield is_ours


def _needed(runs: Iterable[StageRun], root: Path, removed: Collection[str]) -> set[Path]:
    """Return every path that a remaining run names, with its parent folders."""
    named = {path for run in runs if run.id not in removed for path in _named_by(run, root)}
    return {part for path in named for part in (path, *path.parents)}


def _named_by(run: StageRun, root: Path) -> Iterator[Path]:
    """Yield the paths that a run names, resolved.

    A relative path counts if it exists relative to the current folder, ``CODEDANCE_DIR`` or its
    parent: the run's own working folder is not recorded.
    """
    for text in _texts((run.parameters, run.outputs, run.inputs)):
        try:
            path = Path(text).expanduser()
            if path.is_absolute():
                yield path.resolve()
            elif text:
                places = (Path.cwd(), root, root.parent)
                yield from ((one / path).resolve() for one in places if (one / path).exists())
        except (OSError, ValueError, RuntimeError):  # not a path, such as a long text
            continue


def _texts(value: object) -> Iterator[str]:
    """Yield every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in cast("Mapping[str, Any]", value).values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in cast("Sequence[Any]", value):
            yield from _texts(part)
