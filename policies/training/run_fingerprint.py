"""Fingerprint of a training run: a hash of all inputs that decide its result, checked on resume.

Settings count by value, whatever their name: a reward counts with its numbers and the program text
of a user's own terms, a teacher with its files. Settings that only concern execution are left out,
so that they can change between sessions: how often the state is saved, the number of processes,
whether they share the weights, the size of micro-batches, and where a teacher runs.
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
"""Settings that can differ when a run is resumed: the result is the same, up to rounding."""

_REWARD = frozenset({"reward", "reward_terms"})
_MODELS = frozenset({"teacher"})  # count by their content
_UNREAD = frozenset({"images", "provenance", "split"})
"""Fields of a task that no training reads, and the images, which are hashed by pixels."""


def run_fingerprint(
    model: str | Path,
    config: TrainingSetup,
    data: Iterable[bytes],
    *,
    scoring: RewardPreset | None = None,
    teacher: str | Path | None = None,
) -> str:
    """Return the fingerprint of a run.

    Args:
        model: Folder or hub id of the initial model; a hub id has to be loaded before.
        config: Settings of the run.
        data: Digest of each training example, in order.
        scoring: Reward, own terms included; None where there is none.
        teacher: Folder or hub id of a teacher; None where there is none.
    """
    sha = hashlib.sha256(_settings(config))
    sha.update(folder_digest(model))
    if scoring is not None:
        sha.update(_scoring(scoring))
    if teacher is not None:
        sha.update(folder_digest(teacher))
    for digest in data:
        sha.update(digest)
    return sha.hexdigest()


def task_digest(task: Task) -> bytes:
    """Hash the parts of a task that training reads: question, images, truth and grading."""
    values = {one.name: getattr(task, one.name) for one in fields(task) if one.name not in _UNREAD}
    return _digest(values, (picture_digest(image) for image in task.images))


def _settings(config: TrainingSetup) -> bytes:
    left_out = LAYOUT | _REWARD | _MODELS
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
