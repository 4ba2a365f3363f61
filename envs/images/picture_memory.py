"""What was worked out of a picture, remembered for as long as that very object lives.

A picture in a task, a message or an execution is never changed, so its digest is worked out once,
not once per turn and reader. Pictures are known by identity and held weakly: PIL's compare by
pixels, which is the work that is to be saved.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TypeVar

from PIL import Image

Value = TypeVar("Value")


def once_per_picture(work: Callable[[Image.Image], Value]) -> Callable[[Image.Image], Value]:
    """Remember what the decorated function returns of each picture object; safe for threads."""
    known: dict[int, tuple[weakref.ref[Image.Image], Value]] = {}

    @functools.wraps(work)
    def remembered(image: Image.Image) -> Value:
        place = id(image)
        entry = known.get(place)
        if entry is not None and entry[0]() is image:
            return entry[1]
        value = work(image)

        def forget(gone: weakref.ref[Image.Image]) -> None:
            if (kept := known.get(place)) is not None and kept[0] is gone:
                del known[place]

        known[place] = weakref.ref(image, forget), value
        return value

    return remembered
