"""Training state on disk: written atomically, and enough to resume a run bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from ..inference.model_files import hub_commit
from ..models.model_folder import ADAPTER_FILE, read_notes
from .distributed.processes import World

Guard = Callable[[], None]
"""Called before files of a run are replaced; it raises where another process has the run now."""
_FILE = "state.pt"
_IGNORED = re.compile(
    r"(^|/)(\.|LICEN[CS]E|NOTICE|training_args\.bin$|trainer_state\.json$|codedance\.json$"
    r"|(optimizer|scheduler|rng_state\w*)\.(pt|pth|bin)$)|\.md$"
)
"""Files of a model folder that do not affect the model, by relative path; notes: see below."""


class TrainingInterrupted(RuntimeError):  # noqa: N818 - not an error: the state is saved
    """Training was stopped and has saved its state; the same call resumes from there.

    Attributes:
        step: Number of steps done.
        folder: Folder of the saved state.
    """

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(f"stopped after step {step}; the state is in {folder}")
        self.step = step
        self.folder = folder


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved state: the number of steps done, and the tensors and numbers of the run."""

    step: int
    values: Mapping[str, Any]


def save_state(
    folder: Path,
    step: int,
    values: Mapping[str, Any],
    *,
    fingerprint: str,
    guard: Guard | None = None,
) -> None:
    """Write a run's state; whenever the process dies, the folder holds the old or the new one.

    Two processes that save at once never write to the same file: a partially written state has the
    name of its process.

    Args:
        folder: Folder of the state.
        step: Number of steps done.
        values: State dicts and plain values.
        fingerprint: Fingerprint of the run; `load_state` rejects another run's state.
        guard: Called before the old state is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{_FILE}.{_own_mark()}.new"
    try:
        with fresh.open("wb") as file:
            torch.save({"step": step, "fingerprint": fingerprint, "values": dict(values)}, file)
            file.flush()
            os.fsync(file.fileno())
        if guard is not None:
            guard()
        fresh.replace(folder / _FILE)
    finally:
        fresh.unlink(missing_ok=True)


def end_step(
    world: World,
    step: int,
    metrics: Mapping[str, float],
    on_step: Callable[[int, Mapping[str, float]], None] | None,
    should_stop: Callable[[], bool] | None,
) -> bool:
    """Report a step in the first process; return whether any process was asked to stop.

    Raises:
        ProcessError: A callback of another process failed; the others would wait for it.
    """

    def work() -> bool:
        if on_step is not None and world.is_first:
            on_step(step, metrics)
        return should_stop is not None and should_stop()

    return any(world.gather(work))


def keep_state(
    folder: Path,
    step: int,
    values: Mapping[str, Any],
    *,
    fingerprint: str,
    world: World,
    guard: Guard | None = None,
) -> None:
    """Save the state that all processes share, once; the others wait until it is on disk."""

    def save() -> None:
        if world.is_first:
            save_state(folder, step, values, fingerprint=fingerprint, guard=guard)

    world.gather(save)


def save_final(
    folder: Path, save: Callable[[Path], None], world: World, guard: Guard | None = None
) -> None:
    """Write the trained model as ``folder/final``, once; ``save`` is called by all processes.

    ``guard`` is called before an older folder of that name is replaced.
    """
    build = folder / f"final.{_own_mark()}.new"

    def finish() -> None:
        if not world.is_first:
            return
        if guard is not None:
            guard()
        publish(build, folder / "final")

    def begin() -> None:
        for left in folder.glob("final.*new") if world.is_first else ():
            shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
        if world.is_first:
            fresh_folder(build)

    world.gather(begin)
    world.gather(lambda: save(build))
    world.gather(finish)


def _own_mark() -> str:
    """Return a name for files of this process, which no process of another machine has."""
    return f"{os.uname().nodename}-{os.getpid()}"


def load_state(folder: Path, *, fingerprint: str) -> Snapshot | None:
    """Read a run's state; None where there is none.

    Raises:
        ValueError: The state belongs to a run with other settings or data, or is damaged.
    """
    path = folder / _FILE
    for left in folder.glob(f"{_FILE}.*new"):  # by a process that was killed
        left.unlink(missing_ok=True)
    if not path.is_file():
        return None
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged; remove {folder} to "
            "begin the training anew"
        ) from error
    if data["fingerprint"] != fingerprint:
        raise ValueError(
            f"{folder} holds the state of another run (settings, data or starting weights differ);"
            " remove that folder or choose another"
        )
    return Snapshot(int(data["step"]), data["values"])


def folder_digest(source: str | Path) -> bytes:
    """Hash the contents of a model; a folder's own path is not part of the hash.

    All files of a folder count in full, whatever form its weights have: tokenizer, chat template
    and image processor too, and for adapters their base model. Left out are texts for people,
    hidden files and the files that a trainer stores beside the weights. A hub id counts with its
    commit on this machine.
    """
    root = Path(source)
    if not root.is_dir():
        return hashlib.sha256(f"{source} {hub_commit(str(source))}".encode()).digest()
    sha = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not _IGNORED.search(name):
            sha.update(len(name.encode()).to_bytes(8, "big") + name.encode() + _file_digest(path))
    notes = read_notes(root)
    sha.update(repr((notes.system_prompt, notes.max_pixels)).encode("utf-8", "backslashreplace"))
    return sha.digest()


def _file_digest(path: Path) -> bytes:
    """Hash a file; a configuration by its values, without the source of its model."""
    if path.name not in ("config.json", ADAPTER_FILE):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    try:
        settings = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return hashlib.sha256(path.read_bytes()).digest()
    base = settings.pop("base_model_name_or_path", None)
    settings.pop("_name_or_path", None)
    sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    if path.name == ADAPTER_FILE and base:
        sha.update(folder_digest(base))
    return sha.digest()


def fresh_folder(folder: Path) -> Path:
    """Create an empty build folder; the remains of a killed process are deleted."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def publish(build: Path, final: Path) -> None:
    """Move a finished folder to its name; an older one of that name is deleted.

    A kill between the two leaves no folder of that name: the state is still there to rebuild it.
    """
    if final.exists():
        shutil.rmtree(final)
    build.replace(final)
