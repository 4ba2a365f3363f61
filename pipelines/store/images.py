"""Images on disk, named by the SHA-256 of their pixels: the same image is stored once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary, finalize

from PIL import Image

from .connection.errors import FULL, StoreError, StoreFullError


def pixel_digest(image: Image.Image) -> str:
    """Return the digest of an image's mode, size and pixels."""
    head = f"{image.mode} {image.width} {image.height} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


class ImageFolder:
    """A content-addressed folder of PNG files; safe for several writers at once.

    An instance that has stored an image holds a shared lock until it is closed, so that an image
    that no row names yet is not removed as unused (see `exclusive`).

    Attributes:
        root: The folder.
        guard: Called before a file is written; an exception prevents it. None checks nothing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.guard: Callable[[], None] | None = None
        self._known: set[str] = set()
        self._digests: dict[int, tuple[Image.Image, str]] = {}
        self._loaded: WeakValueDictionary[str, Image.Image] = WeakValueDictionary()
        self._release: finalize[..., ImageFolder] | None = None
        self._holding = threading.Lock()

    def path(self, digest: str) -> Path:
        """Return the path of the image with this digest."""
        return self.root / digest[:2] / f"{digest}.png"

    def put(self, image: Image.Image) -> str:
        """Store an image unless it is already stored; return its digest.

        Raises:
            StoreFullError: The disk is full; no file was left behind.
        """
        digest = self._digest(image)
        if digest in self._known:
            return digest
        target = self.path(digest)
        self.hold()
        if not target.exists():
            self._write(image, target)
        self._known.add(digest)
        return digest

    def get(self, digest: str) -> Image.Image:
        """Load an image; it is shared with other callers and must not be changed.

        Raises:
            StoreError: The image is missing, or the file's pixels no longer have this digest.
        """
        loaded = self._loaded.get(digest)
        if loaded is not None:
            return loaded
        image = self.check(digest)
        self._loaded[digest] = image
        return image

    def check(self, digest: str) -> Image.Image:
        """Read an image's file and check its pixels against the digest.

        Raises:
            StoreError: The image is missing, or the file's pixels no longer have this digest.
        """
        try:
            with Image.open(self.path(digest)) as file:
                image = file.copy()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise StoreError(f"image {digest[:12]} is missing or broken: {error}") from error
        if pixel_digest(image) != digest:
            raise StoreError(f"image {self.path(digest)} was changed: its digest no longer matches")
        return image

    def digests(self) -> Iterator[str]:
        """Yield the digests of all stored images."""
        for folder in sorted(self.root.glob("??")):
            yield from (path.stem for path in sorted(folder.glob("*.png")))

    @contextmanager
    def exclusive(self) -> Generator[bool]:
        """Lock the folder against writers; yield False if there is one at this moment."""
        handle = self._open_lock()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except OSError:  # held by another process, or a file system without locks
            is_alone = False
        try:
            yield is_alone
        finally:
            os.close(handle)

    def close(self) -> None:
        """Release the lock."""
        with self._holding:
            if self._release is not None:
                self._release()
                self._release = None
            self._known.clear()

    def hold(self) -> None:
        """Prevent `exclusive` in other processes until this is closed."""
        if self._release is not None:
            return
        with self._holding:
            if self._release is None:
                handle = self._open_lock()
                with suppress(OSError):  # a file system without locks: `exclusive` fails, too
                    fcntl.flock(handle, fcntl.LOCK_SH)
                self._release = finalize(self, os.close, handle)

    def _open_lock(self) -> int:
        path = self.root / ".lock"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._translate(error, path) from error

    def _translate(self, error: OSError, path: Path) -> StoreError:
        if error.errno in FULL:
            return StoreFullError(self.root)
        return StoreError(f"could not write {path}: {error}")

    def _digest(self, image: Image.Image) -> str:
        """Hash an image object once: siblings of a group share the same object."""
        kept = self._digests.get(id(image))
        if kept is not None and kept[0] is image:
            return kept[1]
        if len(self._digests) > 4096:
            self._digests.clear()
        digest = pixel_digest(image)
        self._digests[id(image)] = (image, digest)
        return digest

    def _write(self, image: Image.Image, target: Path) -> None:
        if self.guard is not None:
            self.guard()
        temporary = target.with_name(f"{target.stem}.{uuid4().hex}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            image.save(temporary, format="PNG", compress_level=1)
            os.replace(temporary, target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._translate(error, target) from error
