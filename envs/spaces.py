"""Spaces that Gymnasium lacks: text in any Unicode, images of any size."""

from __future__ import annotations

import string
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

LONGEST_TEXT = 10_000_000
_LONGEST_SAMPLE = 256
_LARGEST_SAMPLE = 32


class AnyText(gymnasium.spaces.Text):
    """All strings, including lone surrogates; samples are short and printable."""

    def __init__(
        self,
        max_length: int = LONGEST_TEXT,
        *,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(max_length, min_length=0, charset=frozenset(string.printable), seed=seed)

    def contains(self, x: Any) -> bool:  # noqa: ANN401 - Gymnasium's signature
        """Whether ``x`` is a string that is not longer than ``max_length``."""
        return isinstance(x, str) and len(x) <= self.max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:  # noqa: ANN401
        """Draw a string of at most 256 printable characters; masks as in `Text`."""
        if mask is not None or probability is not None:
            return super().sample(mask=mask, probability=probability)
        length = self.np_random.integers(min(self.max_length, _LONGEST_SAMPLE) + 1)
        return "".join(self.np_random.choice(self.character_list, size=length))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText) and self.max_length == other.max_length

    __hash__ = None  # pyright: ignore[reportAssignmentType] - spaces are mutable

    def __repr__(self) -> str:
        return f"AnyText({self.max_length})"


class Picture(gymnasium.Space[NDArray[np.uint8]]):
    """All RGB images: arrays ``(H, W, 3)`` of uint8 with at least one pixel."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(shape=None, dtype=np.uint8, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Always False, as sizes differ."""
        return False

    def contains(self, x: Any) -> bool:  # noqa: ANN401 - Gymnasium's signature
        """Whether ``x`` is an array ``(H, W, 3)`` of uint8 with at least one pixel."""
        if not isinstance(x, np.ndarray):
            return False
        array = cast(NDArray[Any], x)
        is_rgb = array.ndim == 3 and array.shape[2] == 3 and array.size > 0
        return is_rgb and array.dtype == np.uint8

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.uint8]:  # noqa: ANN401
        """Draw noise of at most 32 by 32 pixels; masks are ignored."""
        del mask, probability
        height, width = self.np_random.integers(1, _LARGEST_SAMPLE + 1, size=2)
        return self.np_random.integers(0, 256, size=(height, width, 3), dtype=np.uint8)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture)

    __hash__ = None  # pyright: ignore[reportAssignmentType] - spaces are mutable

    def __repr__(self) -> str:
        return "Picture()"


def observation_space() -> gymnasium.spaces.Dict:
    """Return the space of ``{"text": str, "images": tuple of (H, W, 3) uint8 arrays}``."""
    return gymnasium.spaces.Dict(
        {"text": AnyText(), "images": gymnasium.spaces.Sequence(Picture())}
    )
