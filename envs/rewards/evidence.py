"""Evidence of a tool call: new output that depends on the image.

The successful blocks of a trajectory are replayed in fresh sessions: on the true image, on one with
its values shuffled, and on images that are changed but no noise (`changed_pictures`). Output is
evidence if it differs from earlier output, is reproduced on the true image, is not reproduced on
the shuffled one, and is not reproduced on some changed one. Constants, comments and the image's
size are therefore no evidence, and neither is "it is no noise".

The first three replays run in a secret order, so that code which counts its runs cannot know which
image it is to recognize. Usually they suffice: the second and third changed image are asked only
about output that the first did not change.

Siblings with the same blocks share their replays. Every session of an episode and every replay has
the sandbox's own seed, so they draw the same numbers, and code cannot tell them apart by the seed.

Output is compared piece by piece (printed text, each image), so that an image shown before does not
count again under a new caption. Values are shuffled over pixels and channels together: the share of
a colour is evidence, and shuffling whole pixels would preserve it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...sandbox import Execution, SandboxError
from ...sandbox.types import Sandbox, SandboxUnavailableError
from ..picture import kept_picture, picture_array, picture_digest
from ..types import Ending, Trajectory, Turn

Parts = frozenset[str]
"""Digests of the pieces of an output."""

_MOST_KEPT = 500_000
"""Number of values of the largest image whose order is cached: 4 MB."""


Outputs = tuple[Parts, ...]
"""Output of each block."""

EvidenceCache = MutableMapping[str, "Future[Outputs]"]
"""Replays by images, blocks and change of the images, such as a dict."""

_TRUE, _SHUFFLED = "true", "shuffled"
_CHANGED = ("turned", "magnified", "inverted")
"""The images of the replays, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """A replay plan: images, and the blocks that succeeded."""

    images: tuple[Image.Image, ...]
    blocks: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of images and blocks."""
        sha = hashlib.sha256()
        for text in (*(picture_digest(image) for image in self.images), *self.blocks):
            data = text.encode("utf-8", "backslashreplace")
            sha.update(len(data).to_bytes(8, "big") + data)
        return sha.hexdigest()


class _Replays:
    """The replays of one plan, each run once per cache."""

    def __init__(self, plan: _Plan, sandbox: Sandbox, cache: EvidenceCache | None) -> None:
        self._plan = plan
        self._digest = plan.digest
        self._sandbox = sandbox
        self._cache: EvidenceCache = {} if cache is None else cache

    def outputs(self, name: str) -> Outputs:
        """Return the outputs of the blocks on the images of this name."""

        def run() -> Outputs:
            return self._outputs(tuple(_images[name](image) for image in self._plan.images))

        return self._once(f"{self._digest} {name}", run)

    def _once(self, key: str, run: Callable[[], Outputs]) -> Outputs:
        """Run, or wait for a concurrent run of the same replay; retry here if that failed."""
        own: Future[Outputs] = Future()
        found = self._cache.setdefault(key, own)
        if found is not own:
            try:
                return found.result()
            except SandboxError:
                return run()
        try:
            outputs = run()
        except BaseException as error:
            self._cache.pop(key, None)
            own.set_exception(error)
            raise
        own.set_result(outputs)
        return outputs

    def _outputs(self, images: tuple[Image.Image, ...]) -> Outputs:
        """Run the blocks in a fresh session; retry a lost session once."""
        try:
            return self._run(images)
        except SandboxUnavailableError:
            raise
        except SandboxError:
            return self._run(images)

    def _run(self, images: tuple[Image.Image, ...]) -> Outputs:
        with self._sandbox.session(images) as session:
            executions = [session.run(block) for block in self._plan.blocks]
        return tuple(output_parts(one) if one.is_ok else frozenset[str]() for one in executions)


def record_evidence(
    trajectory: Trajectory,
    images: Sequence[Image.Image],
    sandbox: Sandbox,
    cache: EvidenceCache | None = None,
) -> Trajectory:
    """Return the trajectory with `Turn.has_evidence` filled in for every tool turn.

    Replays only where evidence is possible. A replay that overruns or ends differently from the
    first run is no evidence; a sandbox that fails twice ends the trajectory as infrastructure.

    Args:
        trajectory: Trajectory as recorded by the episode.
        images: Input images of its sessions.
        sandbox: Sandbox of the replays.
        cache: Cache of replays, read and written; safe to share between threads.

    Raises:
        SandboxUnavailableError: This machine lacks what the sandbox's backend needs.
    """
    fresh = new_parts(trajectory)
    calls = trajectory.tool_turns
    can_count = [bool(new) and not turn.has_failed for new, turn in zip(fresh, calls, strict=True)]
    if not (trajectory.needs_picture and any(can_count)):
        return _with_evidence(trajectory, can_count)
    succeeded = [place for place, turn in enumerate(calls) if not turn.has_failed]
    blocks = tuple(calls[place].action.content for place in succeeded)
    replays = _Replays(_Plan(tuple(images), blocks), sandbox, cache)
    new = [fresh[place] for place in succeeded]
    try:
        is_evidence = _dependent(replays, new)
    except SandboxUnavailableError:
        raise
    except SandboxError:
        return replace(trajectory, ending=Ending.INFRASTRUCTURE, accuracy=None)
    found = [False] * len(calls)
    for place, is_one in zip(succeeded, is_evidence, strict=True):
        found[place] = is_one
    return _with_evidence(trajectory, found)


def _dependent(replays: _Replays, new: Sequence[Parts]) -> list[bool]:
    """Return whether each block has new output that is reproduced and depends on the image."""
    found = _first_outputs(replays, new)
    left = _unlike(found, new)
    evident = [False] * len(left)
    for name in _CHANGED:
        if all(is_one or not parts for is_one, parts in zip(evident, left, strict=True)):
            break
        changed = found[name] if name in found else replays.outputs(name)
        dependent = [bool(parts - one) for parts, one in zip(left, changed, strict=True)]
        evident = [any(both) for both in zip(evident, dependent, strict=True)]
    return evident


def _first_outputs(replays: _Replays, new: Sequence[Parts]) -> dict[str, Outputs]:
    """Replay on the true, the shuffled and a changed image, in a secret order.

    Stops early where no output can be evidence any more.
    """
    found: dict[str, Outputs] = {}
    for name in secret_order((_TRUE, _SHUFFLED, _CHANGED[0])):
        found[name] = replays.outputs(name)
        if not any(_unlike(found, new)):
            break
    return found


def _unlike(found: dict[str, Outputs], new: Sequence[Parts]) -> list[Parts]:
    """Return the new output of each block that can still be evidence after these replays."""
    true = found.get(_TRUE, new)
    shuffled = found.get(_SHUFFLED, [frozenset[str]()] * len(new))
    return [parts & one - other for parts, one, other in zip(new, true, shuffled, strict=True)]


def secret_order(names: Sequence[str]) -> list[str]:
    """Return names in an order that no model code can predict."""
    return secrets.SystemRandom().sample(names, len(names))


def _given(turn: Turn) -> Parts:
    return frozenset() if turn.execution is None else output_parts(turn.execution)


def output_parts(execution: Execution) -> Parts:
    """Return the digests of a block's output: its text, its warnings, each image."""
    parts = {f"picture {picture_digest(kept_picture(image))}" for image in execution.images}
    for name, text in (("stdout", execution.stdout), ("stderr", execution.stderr)):
        if text.strip():
            digest = hashlib.sha256(text.strip().encode("utf-8", "backslashreplace"))
            parts.add(f"{name} {digest.hexdigest()}")
    return frozenset(parts)


def new_parts(trajectory: Trajectory) -> list[Parts]:
    """Return, for each tool turn in order, the pieces of output not in any earlier turn."""
    seen: set[str] = set()
    fresh: list[Parts] = []
    for turn in trajectory.tool_turns:
        parts = _given(turn)
        fresh.append(parts - seen)
        seen |= parts
    return fresh


def shuffled_picture(image: Image.Image) -> Image.Image:
    """Return the image with its values shuffled; inverted where they are all equal."""
    pixels = picture_array(image)
    values = pixels.reshape(-1)
    if values.min() == values.max():
        return Image.fromarray(255 - pixels)
    mixed = values[_order(values.size)]
    return Image.fromarray(mixed.reshape(pixels.shape))


def changed_pictures(image: Image.Image) -> tuple[Image.Image, ...]:
    """Return changed images of the same size that are no noise, as `evidence` compares them.

    Turned by half with other colours; a quarter magnified; inverted and mirrored.
    """
    return tuple(_images[name](image) for name in _CHANGED)


def _turned(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture_array(image)[::-1, ::-1, [1, 2, 0]]))


def _magnified(image: Image.Image) -> Image.Image:
    pixels = picture_array(image)
    height, width = pixels.shape[:2]
    rows, columns = np.arange(height) // 2, np.arange(width) // 2
    return Image.fromarray(np.ascontiguousarray(pixels[rows][:, columns]))


def _inverted(image: Image.Image) -> Image.Image:
    return Image.fromarray(255 - picture_array(image)[:, ::-1])


def _unchanged(image: Image.Image) -> Image.Image:
    return image


_images: dict[str, Callable[[Image.Image], Image.Image]] = dict(
    zip(
        (_TRUE, _SHUFFLED, *_CHANGED),
        (_unchanged, shuffled_picture, _turned, _magnified, _inverted),
        strict=True,
    )
)


def _order(count: int) -> NDArray[np.intp]:
    """Return a permutation of ``count`` values; cached for usual sizes, as drawing is slow."""
    return _kept_order(count) if count <= _MOST_KEPT else _drawn_order(count)


def _drawn_order(count: int) -> NDArray[np.intp]:
    return np.random.default_rng(0).permutation(count).astype(np.intp, copy=False)


_kept_order = lru_cache(maxsize=4)(_drawn_order)


def _with_evidence(trajectory: Trajectory, found: Sequence[bool]) -> Trajectory:
    flags = iter(found)
    turns: list[Turn] = [
        replace(turn, has_evidence=next(flags)) if turn.is_tool_turn else turn
        for turn in trajectory.turns
    ]
    return replace(trajectory, turns=tuple(turns))
