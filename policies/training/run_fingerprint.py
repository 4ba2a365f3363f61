"""What a training run is recognised by when it is continued: all that decides its result.

Settings count by value, whatever they are called: a reward counts with its numbers and the program
text of a user's own terms. What only says how the work is laid out or kept is left out, so that it
may change in between: how often the state is saved, over how many processes the run is spread,
whether they share the weights, and how much is computed at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...envs.rewards.presets import RewardPreset
from ...envs.rewards.registry import own_term_programs
from ...envs.types import Task
from ..models.pictures import picture_digest
from .training_setup import TrainingSetup
from .training_state import folder_digest

LAYOUT = frozenset({"save_every", "fsdp", "max_tokens_per_micro_batch"})
"""Settings that may differ when a run is continued: the result is the same, up to rounding."""

_REWARD = frozenset({"reward", "reward_terms"})
_UNREAD = frozenset({"images", "provenance", "split"})
"""Fields of a task that no training reads, and the pictures, which are hashed by pixels."""


def run_fingerprint(
    model: str | Path,
    config: TrainingSetup,
    data: Iterable[bytes],
    *,
    scoring: RewardPreset | None = None,
) -> str:
    """Return what a run is recognised by.

    Args:
        model: Folder or hub id that it starts from, loaded before where it is a hub id.
        config: Its settings.
        data: A digest of each thing to learn from, in order.
        scoring: The reward, own terms included, where there is one.
    """
    sha = hashlib.sha256(_settings(config))
    sha.update(folder_digest(model))
    if scoring is not None:
        sha.update(_scoring(scoring))
    for digest in data:
        sha.update(digest)
    return sha.hexdigest()


def task_digest(task: Task) -> bytes:
    """Hash what training reads of a task: its question, pictures, truth and how it is graded."""
    values = {one.name: getattr(task, one.name) for one in fields(task) if one.name not in _UNREAD}
    return _digest(values, (picture_digest(image) for image in task.images))


def _settings(config: TrainingSetup) -> bytes:
    left_out = LAYOUT | _REWARD
    names = sorted({one.name for one in fields(config)} - left_out)
    return _digest({name: getattr(config, name) for name in names})


def _scoring(preset: RewardPreset) -> bytes:
    left_out = {"name", "own_terms"}
    values = {one.name: getattr(preset, one.name) for one in fields(preset)}
    kept = {name: value for name, value in values.items() if name not in left_out}
    return _digest(kept | {"own terms": sorted(own_term_programs(preset).items())})


def _digest(values: Mapping[str, Any], more: Iterable[bytes] = ()) -> bytes:
    """Hash plain values by name, and digests in order."""
    sha = hashlib.sha256(repr(list(values.items())).encode("utf-8", "backslashreplace"))
    for digest in more:
        sha.update(digest)
    return sha.digest()
