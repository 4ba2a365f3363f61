"""The page's data in shards that are loaded on demand.

A shard is JSON: trajectories by their row on the page, and the images they show, once each, as
base64 of our own PNG files. The first shards are in the page itself, up to a budget; the others are
scripts beside it that pass their JSON on, since a page opened from disk may not fetch.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store.connection.errors import StoreError
from ..store.images import ImageFolder

LARGEST = 1_500_000
"""Maximum number of characters per shard."""
AROUND = 80
"""Maximum number of characters around a trajectory or an image."""
REMEMBERED = 256
SHARD_SUFFIX = ".mjs"
"""MLflow's server sends ``.js`` files as plain text, which no browser runs."""
PNG = b"\x89PNG\r\n\x1a\n"
_FRAME = '{"trajectories":{},"pictures":{}}'
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def safe_json(value: object) -> str:
    r"""Return JSON in ASCII that is safe in an HTML page: nothing in it ends a script.

    >>> print(safe_json("</script>"))
    "\u003c/script\u003e"
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


@dataclass(frozen=True, slots=True)
class Entry:
    """A trajectory in a shard.

    Attributes:
        row: Its row on the page.
        text: Its JSON.
        pictures: Digests of its images.
    """

    row: int
    text: str
    pictures: tuple[str, ...]


class ShardWriter:
    """Writes shards: into the page while the budget lasts, to files after that.

    Args:
        images: Folder with the stored images.
        folder: Folder for the files; created with the first, cleared of older ones.
        budget: Maximum number of characters in the page.
    """

    def __init__(self, images: ImageFolder, folder: Path, *, budget: int) -> None:
        self.inline: list[str] = []
        self.shard_of: dict[int, int] = {}
        self.missing: set[str] = set()
        self.size = 0
        self._images = images
        self._folder = folder
        self._left = budget
        self._count = 0
        self._entries: list[Entry] = []
        self._pictures: dict[str, str] = {}
        self._lately: dict[str, str] = {}
        self._length = len(_FRAME)
        for old in (*folder.glob(f"*{SHARD_SUFFIX}"), *folder.glob("*.js")):
            old.unlink()

    @property
    def is_inline(self) -> bool:
        """Whether the page itself has room for more trajectories."""
        return self._left > 0

    @property
    def count(self) -> int:
        """Number of shards."""
        return self._count

    def add(self, entries: Iterable[Entry]) -> None:
        """Add trajectories that are viewed together to the same shard."""
        bundle = list(entries)
        room = min(LARGEST, self._left) if self.is_inline else LARGEST
        if self._entries and self._length + self._measure(bundle) > room:
            self.close_shard()
        if self.is_inline and self._measure(bundle) > self._left:
            self._left = 0
        self._length += self._measure(bundle)
        for item in bundle:
            self._entries.append(item)
            self.shard_of[item.row] = self._count
            for digest in item.pictures:
                self._pictures[digest] = self._read(digest)

    def _measure(self, bundle: list[Entry]) -> int:
        """Return the number of characters that a bundle adds to the current shard."""
        new = {digest for item in bundle for digest in item.pictures} - set(self._pictures)
        text = sum(len(item.text) + AROUND for item in bundle)
        return text + sum(len(self._read(digest)) + AROUND for digest in new)

    def close_shard(self) -> None:
        """Close the current shard."""
        if not self._entries:
            return
        trajectories = ",".join(f'"{entry.row}":{entry.text}' for entry in self._entries)
        body = f'{{"trajectories":{{{trajectories}}},"pictures":{safe_json(self._pictures)}}}'
        if self.is_inline:
            self.inline.append(body)
            self._left -= len(body)
        else:
            self._write(body)
        self._count += 1
        self._entries, self._pictures, self._length = [], {}, len(_FRAME)

    def _write(self, body: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        script = f"codedanceShard({self._count},{json.dumps(body)});\n"
        self.size += len(script)
        (self._folder / f"{self._count:04}{SHARD_SUFFIX}").write_text(script, encoding="ascii")

    def _read(self, digest: str) -> str:
        """Return an image's PNG file as base64; empty if it is missing from the store."""
        known = self._pictures.get(digest, self._lately.get(digest))
        if known is None:
            known = self._load(digest)
            if len(self._lately) > REMEMBERED:
                self._lately.clear()
            self._lately[digest] = known
        return known

    def _load(self, digest: str) -> str:
        try:
            data = self._images.path(digest).read_bytes()
        except OSError:
            data = b""
        if not data.startswith(PNG):
            self.missing.add(digest)
            return ""
        return base64.b64encode(data).decode("ascii")


def check_whole(shard_of: Mapping[int, int], rows: int) -> None:
    """Check that every row has a shard.

    Raises:
        StoreError: A trajectory was removed from the store while the page was written.
    """
    if len(shard_of) != rows:
        count = rows - len(shard_of)
        raise StoreError(f"{count} trajectories were removed while the page was written")


def entry(row: int, content: Mapping[str, Any], pictures: Iterable[str]) -> Entry:
    """Return the entry of a trajectory."""
    return Entry(row, safe_json(content), tuple(dict.fromkeys(pictures)))
