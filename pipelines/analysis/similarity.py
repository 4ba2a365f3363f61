"""Finds tasks with equal or nearly equal images: duplicates and leaks.

A near duplicate has similar difference hashes (16 by 17 grey thumbnail, 256 bits, after Krawetz's
dHash) and, since drawings on a plain background have similar hashes, thumbnails that agree
everywhere.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...envs.types import Task
from ..store.images import pixel_digest

HASH_SIDE = 16
THUMBNAIL_SIDE = 32
LARGEST_DIFFERENCE = 16
"""Maximum difference in grey levels between thumbnails of near duplicates, over all pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """Fingerprint of a task, for comparing tasks.

    Attributes:
        task_id: Id of the task.
        exact: Digest of pixels and question; equal for identical tasks.
        topic: Digest of question and answer; equal for near duplicates.
        bits: Difference hashes of the images, packed, ``(images * 32,)``.
        thumbnails: Thumbnails of the images, ``(images, 32, 32, 3)``.
    """

    task_id: str
    exact: str
    topic: str
    bits: NDArray[np.uint8]
    thumbnails: NDArray[np.int16]


def fingerprint(task: Task) -> Fingerprint:
    """Return the fingerprint of a task."""
    pixels = " ".join(pixel_digest(image) for image in task.images)
    question = " ".join(task.question.casefold().split())
    return Fingerprint(
        task_id=task.id,
        exact=_digest(pixels, question),
        topic=_digest(str(len(task.images)), question, task.answer),
        bits=np.concatenate([np.zeros(0, np.uint8), *(_hash_bits(i) for i in task.images)]),
        thumbnails=np.stack([_thumbnail(i) for i in task.images]).astype(np.int16)
        if task.images
        else np.zeros((0, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.int16),
    )


class Twins:
    """Finds a duplicate of a new fingerprint among those added so far."""

    def __init__(self, near_bits: int, known: Iterable[Fingerprint] = ()) -> None:
        self._near_bits = near_bits
        self._exact: dict[str, str] = {}
        self._topics: defaultdict[str, list[Fingerprint]] = defaultdict(list)
        for item in known:
            self.add(item)

    def add(self, item: Fingerprint) -> None:
        """Add a fingerprint."""
        self._exact.setdefault(item.exact, item.task_id)
        self._topics[item.topic].append(item)

    def find(self, item: Fingerprint) -> tuple[str, bool] | None:
        """Return the id of a duplicate and whether it is exact; None without one."""
        same = self._exact.get(item.exact)
        if same is not None:
            return same, True
        others = self._topics.get(item.topic, ())
        near = next((other for other in others if self._are_near(item, other)), None)
        return None if near is None else (near.task_id, False)

    def _are_near(self, one: Fingerprint, other: Fingerprint) -> bool:
        if not len(one.bits) or not len(other.bits):
            return False
        distance = int(np.bitwise_count(one.bits ^ other.bits).sum())
        if distance > self._near_bits:
            return False
        return int(np.abs(one.thumbnails - other.thumbnails).max()) <= LARGEST_DIFFERENCE


def find_twins(
    items: Sequence[Fingerprint], *, against: Iterable[Fingerprint] = (), near_bits: int = 6
) -> dict[str, tuple[str, bool]]:
    """Return each item's duplicate in ``against`` and whether it is exact, by task id."""
    known = Twins(near_bits, against)
    found = ((item.task_id, known.find(item)) for item in items)
    return {task_id: twin for task_id, twin in found if twin is not None}


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "backslashreplace")).hexdigest()


def _hash_bits(image: Image.Image) -> NDArray[np.uint8]:
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1])


def _thumbnail(image: Image.Image) -> NDArray[np.uint8]:
    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX), np.uint8)
