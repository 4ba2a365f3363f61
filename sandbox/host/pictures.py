"""Input images of sessions: one sealed copy in memory for all sessions that share it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ..worker.rgb import image_to_rgb

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class InputPicture:
    """Raw RGB and digest of an image, from which a session can be opened again."""

    size: tuple[int, int]
    pixels: bytes
    digest: str


def read_pictures(images: Sequence[Image.Image]) -> tuple[InputPicture, ...]:
    """Copy the pixels of ``images`` as RGB; later changes to them have no effect."""
    return tuple(_read(image) for image in images)


def _read(image: Image.Image) -> InputPicture:
    pixels = image_to_rgb(image).tobytes()
    digest = hashlib.sha256(f"RGB {image.width} {image.height}".encode())
    digest.update(pixels)
    return InputPicture(image.size, pixels, digest.hexdigest())


class PicturePool:
    """LRU cache of sealed memory files by digest, of at most ``most_bytes``.

    All rollouts of a group share the same pages; a session cannot write, shrink or grow them.
    """

    def __init__(self, most_bytes: int = 256 << 20) -> None:
        self._most = most_bytes
        self._held = 0
        self._lock = threading.Lock()
        self._files: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def descriptor(self, picture: InputPicture) -> int:
        """Return a descriptor of the image's raw RGB; the caller closes it."""
        with self._lock:
            if picture.digest not in self._files:
                self._files[picture.digest] = (_sealed(picture.pixels), len(picture.pixels))
                self._held += len(picture.pixels)
            self._files.move_to_end(picture.digest)
            descriptor = os.dup(self._files[picture.digest][0])
            while self._held > self._most or len(self._files) > 64:
                oldest, size = self._files.popitem(last=False)[1]
                self._held -= size
                os.close(oldest)
        return descriptor

    def close(self) -> None:
        """Close every file; sessions that have one mapped keep it."""
        with self._lock:
            for descriptor, _ in self._files.values():
                os.close(descriptor)
            self._files.clear()
            self._held = 0


def _sealed(pixels: bytes) -> int:
    descriptor = os.memfd_create("picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(pixels)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor
