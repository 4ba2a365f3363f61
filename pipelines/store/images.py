"""Pictures on disk, named by the SHA-256 of their pixels: the same picture is stored once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary, finalize

from PIL import Image

from .connection.errors import FULL, StoreError, StoreFullError


def pixel_digest(image: Image.Image) -> str:
    """Hash a picture's mode, size and pixels."""
    head = f"{image.mode} {image.width} {image.height} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


class ImageFolder:
    """A content-addressed folder of PNG files; safe for several writers at once.

    Whoever has put a picture there holds a shared lock until it is closed: a picture that no row
    names yet is then not taken for waste (see `exclusive`).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: set[str] = set()
        self._digests: dict[int, tuple[Image.Image, str]] = {}
        self._loaded: WeakValueDictionary[str, Image.Image] = WeakValueDictionary()
        self._let_go: finalize[..., ImageFolder] | None = None
        self._holding = threading.Lock()

    def path(self, digest: str) -> Path:
        """Return where the picture with this digest lies."""
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
        self.hold()
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
        image = self.check(digest)
        self._loaded[digest] = image
        return image

    def check(self, digest: str) -> Image.Image:
        """Read a picture's file and hold its pixels against the digest.

        Raises:
            StoreError: It is missing, or the file's pixels no longer have this digest.
        """
        try:
            with Image.open(self.path(digest)) as file:
                image = file.copy()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise StoreError(f"picture {digest[:12]} is missing or broken: {error}") from error
        if pixel_digest(image) != digest:
            raise StoreError(f"picture {self.path(digest)} was changed: its digest no longer fits")
        return image

    def digests(self) -> Iterator[str]:
        """Yield the digests of all pictures that are there."""
        for folder in sorted(self.root.glob("??")):
            yield from (path.stem for path in sorted(folder.glob("*.png")))

    @contextmanager
    def exclusive(self) -> Generator[bool]:
        """Keep everybody from putting pictures; gives False if somebody is at it right now."""
        handle = self._open_lock()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except OSError:  # held by another, or on a file system that has no locks
            is_alone = False
        try:
            yield is_alone
        finally:
            os.close(handle)

    def close(self) -> None:
        """Let go of the lock."""
        with self._holding:
            if self._let_go is not None:
                self._let_go()
                self._let_go = None
            self._known.clear()

    def hold(self) -> None:
        """Keep `exclusive` from others until this is closed."""
        if self._let_go is not None:
            return
        with self._holding:
            if self._let_go is None:
                handle = self._open_lock()
                with suppress(OSError):  # a file system without locks: then nobody is ever alone
                    fcntl.flock(handle, fcntl.LOCK_SH)
                self._let_go = finalize(self, os.close, handle)

    def _open_lock(self) -> int:
        path = self.root / ".lock"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._told(error, path) from error

    def _told(self, error: OSError, path: Path) -> StoreError:
        if error.errno in FULL:
            return StoreFullError(self.root)
        return StoreError(f"could not write {path}: {error}")

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
            raise self._told(error, target) from error
