"""A training run's state on disk: written whole or not at all, and enough to go on bit by bit."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .processes import World

_FILE = "state.pt"
_END_BYTES = 8 * 2**20


class TrainingInterrupted(RuntimeError):  # noqa: N818 - not an error: the state is saved
    """Training was asked to stop and has saved its state; the same call goes on from there.

    Attributes:
        step: How many steps are done.
        folder: Where the state lies.
    """

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(f"stopped after step {step}; the state is in {folder}")
        self.step = step
        self.folder = folder


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was saved: how many steps are done and the tensors and numbers of the run."""

    step: int
    values: Mapping[str, Any]


def save_state(folder: Path, step: int, values: Mapping[str, Any], *, recipe: str) -> None:
    """Write a run's state; whenever the process dies, the folder holds the old or the new one.

    Args:
        folder: Where it lies.
        step: How many steps are done.
        values: State dicts and plain values.
        recipe: What the run depends on; another run's state is refused by `load_state`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{_FILE}.new"
    with fresh.open("wb") as file:
        torch.save({"step": step, "recipe": recipe, "values": dict(values)}, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / _FILE)


def keep_state(
    folder: Path, step: int, values: Mapping[str, Any], *, recipe: str, world: World
) -> None:
    """Save what all processes hold alike, once; the others go on when it is on disk."""
    world.gather(lambda: world.is_first and save_state(folder, step, values, recipe=recipe))


def save_final(folder: Path, save: Callable[[Path], None], world: World) -> None:
    """Write the trained model as ``folder/final``, once; ``save`` is called by all processes."""
    build = folder / "final.new"
    world.gather(lambda: world.is_first and fresh_folder(build))
    world.gather(lambda: save(build))
    world.gather(lambda: world.is_first and publish(build, folder / "final"))


def load_state(folder: Path, *, recipe: str) -> Snapshot | None:
    """Read a run's state; None where there is none.

    Raises:
        ValueError: The state belongs to a run with other settings or data.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    data = torch.load(path, map_location="cpu", weights_only=True)
    if data["recipe"] != recipe:
        raise ValueError(
            f"{folder} holds the state of another run (settings, data or starting weights differ);"
            " remove that folder or choose another"
        )
    return Snapshot(int(data["step"]), data["values"])


def folder_digest(folder: str | Path) -> bytes:
    """Hash a model folder's weights (their sizes and both ends) and configuration."""
    sha = hashlib.sha256()
    root = Path(folder)
    for path in sorted([*root.glob("*.safetensors"), *root.glob("config.json")]):
        size = path.stat().st_size
        sha.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            sha.update(file.read(_END_BYTES))
            file.seek(max(size - _END_BYTES, 0))
            sha.update(file.read())
    return sha.digest()


def fresh_folder(folder: Path) -> Path:
    """Make a folder to build in; what a killed process left there goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def publish(build: Path, final: Path) -> None:
    """Move a finished folder to its name; an older one of that name goes.

    A kill between the two leaves no folder of that name: the state is still there to make it anew.
    """
    if final.exists():
        shutil.rmtree(final)
    build.replace(final)
