"""Cache of results per image object, for as long as the object lives.

An image in a task, a message or an execution never changes, so its digest is computed once, not
once per turn and reader. Images are identified by object identity and referenced weakly: PIL images
compare by pixels, which is the work to be avoided.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TypeVar

from PIL import Image

Value = TypeVar("Value")


def once_per_picture(work: Callable[[Image.Image], Value]) -> Callable[[Image.Image], Value]:
    """Cache the decorated function's result per image object; thread-safe."""
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
