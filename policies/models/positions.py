"""Multimodal rotary positions of Qwen-VL models: 1D for text, 2D for images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def mrope_positions(
    ids: Sequence[int], grids: Sequence[tuple[int, int]], *, image_id: int
) -> NDArray[np.int64]:
    """Return time, row and column position of each token, ``(3, length)``.

    Args:
        ids: Token ids; an image is a run of ``image_id``.
        grids: Rows and columns of *merged* patches of each image, in order.
        image_id: Id of the image token.

    Raises:
        ValueError: Image tokens and images do not match.
    """
    is_image = np.asarray(ids) == image_id
    if int(is_image.sum()) != sum(rows * columns for rows, columns in grids):
        raise ValueError(
            f"{int(is_image.sum())} image tokens, but the {len(grids)} pictures take "
            f"{sum(rows * columns for rows, columns in grids)}"
        )
    positions = np.empty((3, len(ids)), dtype=np.int64)
    done = 0
    position = 0
    for rows, columns in grids:
        start = done + int(np.argmax(is_image[done:]))
        positions[:, done:start] = np.arange(position, position + start - done)
        position += start - done
        done = start + rows * columns
        positions[0, start:done] = position
        positions[1, start:done] = position + np.repeat(np.arange(rows), columns)
        positions[2, start:done] = position + np.tile(np.arange(columns), rows)
        position += max(rows, columns)
    positions[:, done:] = np.arange(position, position + len(ids) - done)
    return positions
