"""Colour files with 16 bits per channel, of which Pillow keeps only the upper eight bits.

A camera's 10 to 14 bits are in the lower ones, so that such a file would be nearly black. It is
decoded a second time with its bytes in the other order, which yields the lower eight.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_IS_LITTLE = sys.byteorder == "little"
_OTHER_ORDER = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if _IS_LITTLE else ";16L"}


def deep_colours(image: Image.Image, open_again: Callable[[], Image.Image]) -> NDArray[Any] | None:
    """Return 16-bit values ``(H, W, 3 | 4)`` of a file; None where it has no more than 8 bits.

    Args:
        image: Image as opened, before its pixels are loaded; they are loaded afterwards.
        open_again: Function that opens the same file again.
    """
    tiles = list(getattr(image, "tile", ()))
    is_deep = image.mode in ("RGB", "RGBA") and tiles and all(map(_raw_mode, tiles))
    if not is_deep:
        return None
    image.load()
    twin: Any = open_again()
    twin.tile = [_in_other_order(tile) for tile in twin.tile]
    upper = np.asarray(image).astype(np.uint16) << 8
    try:
        twin.load()
    except ValueError:  # Pillow has this raw mode in one order only: keep eight bits
        return upper
    return upper | np.asarray(twin)


def _raw_mode(tile: Any) -> str:  # noqa: ANN401 - its arguments differ with the codec
    """Return the argument of a tile that names samples of 16 bits; empty without one."""
    arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    names = (name for name in arguments if isinstance(name, str) and name[-4:] in _OTHER_ORDER)
    return next(names, "")


def _in_other_order(tile: Any) -> Any:  # noqa: ANN401 - see above
    name = _raw_mode(tile)
    other = name[:-4] + _OTHER_ORDER[name[-4:]]
    if not isinstance(tile.args, tuple):
        return tile._replace(args=other)
    return tile._replace(args=tuple(other if one == name else one for one in tile.args))
