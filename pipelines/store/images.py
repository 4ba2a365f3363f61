"""Pictures on disk, named by the SHA-256 of their pixels: the same picture is stored once."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary

from PIL import Image

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StoreError(RuntimeError):
    """The store could not be read or written; what was written before is intact."""


class StoreFullError(StoreError):
    """No room is left. Nothing was half written: after making room, the same command goes on."""

    def __init__(self, place: Path | str) -> None:
        super().__init__(
            f"no room left to write in {place}; nothing is lost and nothing is half written: make "
            "room (or move CODEDANCE_DIR to a larger disk), then give the same command again"
        )


def pixel_digest(image: Image.Image) -> str:
    """Hash a picture's mode, size and pixels."""
    head = f"{image.mode} {image.width} {image.height} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


class ImageFolder:
    """A content-addressed folder of PNG files; safe for several writers at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: set[str] = set()
        self._digests: dict[int, tuple[Image.Image, str]] = {}
        self._loaded: WeakValueDictionary[str, Image.Image] = WeakValueDictionary()

    def path(self, digest: str) -> Path:
        """Give where the picture with this digest lies."""
        return self.root / digest[:2] / f"{digest}.png"

    def put(self, image: Image.Image) -> str:
        """Store a picture unless it is there already; give its digest.

        Raises:
            StoreFullError: The disk is full; no file was left behind.
        """
        digest = self._digest(image)
        if digest in self._known:
            return digest
        target = self.path(digest)
        if not target.exists():
            self._write(image, target)
        self._known.add(digest)
        return digest

    def get(self, digest: str) -> Image.Image:
        """Load a picture; one that is still in use is shared, so it must not be changed.

        Raises:
            StoreError: It is missing, or the file's pixels no longer have this digest.
        """
        loaded = self._loaded.get(digest)
        if loaded is not None:
            return loaded
        try:
            with Image.open(self.path(digest)) as file:
                image = file.copy()
        except OSError as error:
            raise StoreError(f"picture {digest[:12]} is missing or broken: {error}") from error
        if pixel_digest(image) != digest:
            raise StoreError(f"picture {self.path(digest)} was changed: its digest no longer fits")
        self._loaded[digest] = image
        return image

    def _digest(self, image: Image.Image) -> str:
        """Hash a picture once while it lives: siblings of a group share the very object."""
        kept = self._digests.get(id(image))
        if kept is not None and kept[0] is image:
            return kept[1]
        if len(self._digests) > 4096:
            self._digests.clear()
        digest = pixel_digest(image)
        self._digests[id(image)] = (image, digest)
        return digest

    def _write(self, image: Image.Image, target: Path) -> None:
        temporary = target.with_name(f"{target.stem}.{uuid4().hex}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            image.save(temporary, format="PNG", compress_level=1)
            os.replace(temporary, target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno in FULL:
                raise StoreFullError(self.root) from error
            raise StoreError(f"could not write {target}: {error}") from error
