"""Whether a call of code brought evidence: new output that depends on the picture.

The blocks of a trajectory that succeeded are replayed twice in fresh sessions, on the true picture
and on one with its values shuffled. Output counts that is unlike earlier output, that the first
replay reproduces and the second does not. So constants, comments and the picture's size earn
nothing.

Output is compared piece by piece (what was printed, each picture), so that a picture shown before
does not count again under a new caption. Values are shuffled over pixels and channels at once: the
share of a colour is evidence, and shuffling whole pixels would leave it as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..sandbox import Execution, Sandbox, SandboxError
from .picture import picture_array, picture_digest
from .types import Ending, Trajectory, Turn

Parts = frozenset[str]
"""Digests of the pieces of an output."""

_MOST_KEPT = 500_000
"""Values of the largest picture whose order is kept: 4 MB."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What each successful block gave on the true pictures and on the shuffled ones."""

    true: tuple[Parts, ...]
    shuffled: tuple[Parts, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What to run: pictures, seed, and the blocks that succeeded."""

    images: tuple[Image.Image, ...]
    seed: int
    blocks: tuple[str, ...]

    @property
    def key(self) -> str:
        """SHA-256 of all of it."""
        sha = hashlib.sha256(str(self.seed).encode())
        for text in (*(picture_digest(image) for image in self.images), *self.blocks):
            data = text.encode("utf-8", "backslashreplace")
            sha.update(len(data).to_bytes(8, "big") + data)
        return sha.hexdigest()


EvidenceCache = MutableMapping[str, Replay]
"""Replays by pictures, seed and blocks; a dict will do."""


def record_evidence(
    trajectory: Trajectory,
    images: Sequence[Image.Image],
    sandbox: Sandbox,
    cache: EvidenceCache | None = None,
) -> Trajectory:
    """Give the trajectory with `Turn.has_evidence` filled in for every tool turn.

    Replays only where something can be found. A replay that overruns or ends otherwise than the
    first run did is no evidence; a sandbox that fails twice makes the trajectory one that our
    infrastructure lost.

    Args:
        trajectory: As the episode recorded it.
        images: The pictures that its sessions saw.
        sandbox: Where to replay.
        cache: Replays of earlier calls, read and written.
    """
    fresh = new_parts(trajectory)
    calls = trajectory.tool_turns
    can_count = [bool(new) and not turn.has_failed for new, turn in zip(fresh, calls, strict=True)]
    if not (trajectory.needs_picture and any(can_count)):
        return _with_evidence(trajectory, can_count)
    succeeded = [place for place, turn in enumerate(calls) if not turn.has_failed]
    blocks = tuple(calls[place].action.content for place in succeeded)
    try:
        replay = _replayed(_Plan(tuple(images), trajectory.seed, blocks), sandbox, cache)
    except SandboxError:
        return replace(trajectory, ending=Ending.INFRASTRUCTURE, accuracy=None)
    found = [False] * len(calls)
    for place, true, shuffled in zip(succeeded, replay.true, replay.shuffled, strict=True):
        found[place] = bool((fresh[place] & true) - shuffled)
    return _with_evidence(trajectory, found)


def output_parts(execution: Execution) -> Parts:
    """Give the digests of what a block gave back: its text, its warnings, each picture."""
    parts = {f"picture {picture_digest(image)}" for image in execution.images}
    for name, text in (("stdout", execution.stdout), ("stderr", execution.stderr)):
        if text.strip():
            digest = hashlib.sha256(text.strip().encode("utf-8", "backslashreplace"))
            parts.add(f"{name} {digest.hexdigest()}")
    return frozenset(parts)


def new_parts(trajectory: Trajectory) -> list[Parts]:
    """Give, for each tool turn in order, the pieces of output that no earlier turn gave."""
    seen: set[str] = set()
    fresh: list[Parts] = []
    for turn in trajectory.tool_turns:
        parts = output_parts(turn.execution) if turn.execution is not None else frozenset[str]()
        fresh.append(parts - seen)
        seen |= parts
    return fresh


def shuffled_picture(image: Image.Image) -> Image.Image:
    """Give the picture with its values in another order; inverted where that changes nothing."""
    pixels = picture_array(image)
    values = pixels.reshape(-1)
    if values.min() == values.max():
        return Image.fromarray(255 - pixels)
    mixed = values[_order(values.size)]
    return Image.fromarray(mixed.reshape(pixels.shape))


def _order(count: int) -> NDArray[np.intp]:
    """Give the order of so many values; that of usual sizes is kept, since drawing it is slow."""
    return _kept_order(count) if count <= _MOST_KEPT else _drawn_order(count)


def _drawn_order(count: int) -> NDArray[np.intp]:
    return np.random.default_rng(0).permutation(count).astype(np.intp, copy=False)


_kept_order = lru_cache(maxsize=4)(_drawn_order)


def _replayed(plan: _Plan, sandbox: Sandbox, cache: EvidenceCache | None) -> Replay:
    key = "" if cache is None else plan.key
    if cache is not None and key in cache:
        return cache[key]
    shuffled = replace(plan, images=tuple(shuffled_picture(image) for image in plan.images))
    replay = Replay(true=_outputs(plan, sandbox), shuffled=_outputs(shuffled, sandbox))
    if cache is not None:
        cache[key] = replay
    return replay


def _outputs(plan: _Plan, sandbox: Sandbox) -> tuple[Parts, ...]:
    """Run the blocks in a fresh session; a session that we lose is tried once more."""
    try:
        return _run(plan, sandbox)
    except SandboxError:
        return _run(plan, sandbox)


def _run(plan: _Plan, sandbox: Sandbox) -> tuple[Parts, ...]:
    with sandbox.session(plan.images, seed=plan.seed) as session:
        executions = [session.run(block) for block in plan.blocks]
    return tuple(output_parts(one) if one.is_ok else frozenset[str]() for one in executions)


def _with_evidence(trajectory: Trajectory, found: Sequence[bool]) -> Trajectory:
    flags = iter(found)
    turns: list[Turn] = [
        replace(turn, has_evidence=next(flags)) if turn.is_tool_turn else turn
        for turn in trajectory.turns
    ]
    return replace(trajectory, turns=tuple(turns))
