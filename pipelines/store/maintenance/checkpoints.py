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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...config.file_lock import try_lock
from ..lineage import Lineage, StageRun

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
    needed = _needed(runs.values(), root, removed)
    freed: list[Freed] = []
    for folder in folders:
        with alone_in(folder, is_dry=is_dry) as is_alone:
            if not is_alone:
                left.append(f"{folder.name} is at work: it stays as it is")
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
    """Return the stage runs whose files another run names, each with that one.

    A model that another run starts from, or judges, is named by its path among the parameters.
    """
    stages = (root / "stages").resolve()
    return {
        name: run.id
        for run in runs
        for path in _named_by(run, root)
        if stages in path.parents and (name := path.relative_to(stages).parts[0]) != run.id
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
def alone_in(folder: Path, *, is_dry: bool) -> Generator[bool]:
    """Hold a stage's lock; False where another process is at work, or its lock cannot be had."""
    lock = folder / LOCK
    if is_dry and not os.path.lexists(lock):  # a dry run leaves nothing behind
        yield True
        return
    with ExitStack() as held:
        is_ours = False
        if not lock.is_symlink():  # a link may lead anywhere
            try:
                is_ours = held.enter_context(try_lock(lock))
            except OSError:
                is_ours = False
        yield is_ours


def _needed(runs: Iterable[StageRun], root: Path, removed: Collection[str]) -> set[Path]:
    """Return every path that a run which stays names, with the folders around it."""
    named = {path for run in runs if run.id not in removed for path in _named_by(run, root)}
    return {part for path in named for part in (path, *path.parents)}


def _named_by(run: StageRun, root: Path) -> Iterator[Path]:
    """Return the paths that a run names, resolved.

    A relative one counts if something is there, seen from here, from ``CODEDANCE_DIR`` or from the
    folder around it: what the current folder was then is not known.
    """
    for text in _texts((run.parameters, run.outputs, run.inputs)):
        try:
            path = Path(text).expanduser()
            if path.is_absolute():
                yield path.resolve()
            elif text:
                places = (Path.cwd(), root, root.parent)
                yield from ((one / path).resolve() for one in places if (one / path).exists())
        except (OSError, ValueError, RuntimeError):  # no path at all, such as a long text
            continue


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in cast("Mapping[str, Any]", value).values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in cast("Sequence[Any]", value):
            yield from _texts(part)
