"""Pictures on their way back from a session: received where they stay, neither copied nor decoded.

A pixel crosses as Pillow keeps it in memory (red, green, blue and a byte that nothing reads), so
that a picture is a view of the memory that its bytes were received into. Huge pages and pages
asked for beforehand were tried for that memory: both cost more than they save.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from ..worker.framing import PIXEL_BYTES


def picture_memory(size: tuple[int, int]) -> bytearray:
    """Return memory for a picture's pixels."""
    return bytearray(size[0] * size[1] * PIXEL_BYTES)


def as_picture(memory: bytearray, size: tuple[int, int]) -> Image.Image:
    """Return the RGB picture whose pixels lie in ``memory``, which becomes the picture's own."""
    # what Image.frombuffer does, which offers it for every mode of four bytes a pixel but RGB
    core: Any = Image.core
    raw = core.map_buffer(memory, size, "raw", 0, ("RGB", 0, 1))
    blank: Any = Image.Image()
    picture: Image.Image = blank._new(raw)
    return picture
