"""Images returned by a session: received in place, neither copied nor decoded.

A pixel is sent as Pillow stores it in memory (red, green, blue and an unused byte), so that an
image is a view of the memory that its bytes were received into. Huge pages and prefaulted pages
were tried for that memory: both cost more than they save.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from ..worker.framing import PIXEL_BYTES


def picture_memory(size: tuple[int, int]) -> bytearray:
    """Return memory for an image's pixels."""
    return bytearray(size[0] * size[1] * PIXEL_BYTES)


def as_picture(memory: bytearray, size: tuple[int, int]) -> Image.Image:
    """Return the RGB image whose pixels are in ``memory``; the image takes ownership of it."""
    # as Image.frombuffer does, which supports every mode of four bytes per pixel except RGB
    core: Any = Image.core
    raw = core.map_buffer(memory, size, "raw", 0, ("RGB", 0, 1))
    blank: Any = Image.Image()
    picture: Image.Image = blank._new(raw)
    return picture
