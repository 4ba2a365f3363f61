"""The page's data in pieces that are loaded when they are looked at.

A shard is JSON: trajectories by their row on the page, and the pictures they show, once each, as
base64 of our own PNG files. The first shards stand in the page itself, up to a budget; the others
are scripts beside it that hand over their JSON, since a page opened from disk may not fetch.
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
"""Characters a shard holds before the next is begun."""
AROUND = 80
"""Characters around a trajectory or a picture, at most."""
REMEMBERED = 256
SHARD_SUFFIX = ".mjs"
"""MLflow's server gives ``.js`` files as plain text, which no browser runs."""
PNG = b"\x89PNG\r\n\x1a\n"
_FRAME = '{"trajectories":{},"pictures":{}}'
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def safe_json(value: object) -> str:
    r"""Write JSON in ASCII that can stand in an HTML page: nothing in it ends a script.

    >>> print(safe_json("</script>"))
    "\u003c/script\u003e"
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


@dataclass(frozen=True, slots=True)
class Entry:
    """A trajectory as it stands in a shard.

    Attributes:
        row: Its row on the page.
        text: Its JSON.
        pictures: Digests of the pictures it shows.
    """

    row: int
    text: str
    pictures: tuple[str, ...]


class ShardWriter:
    """Fills shards: in the page while the budget lasts, in files after that.

    Args:
        images: Where pictures are read.
        folder: Where the files go; made with the first, emptied of older ones.
        budget: Characters that may stand in the page.
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
        """Whether the page itself still takes trajectories."""
        return self._left > 0

    @property
    def count(self) -> int:
        """How many shards there are."""
        return self._count

    def add(self, entries: Iterable[Entry]) -> None:
        """Put trajectories that are looked at together into the same shard."""
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
        """Return the characters that a bundle adds to the shard under way."""
        new = {digest for item in bundle for digest in item.pictures} - set(self._pictures)
        text = sum(len(item.text) + AROUND for item in bundle)
        return text + sum(len(self._read(digest)) + AROUND for digest in new)

    def close_shard(self) -> None:
        """End the shard under way."""
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
        """Return a picture's PNG file as base64; empty where the store has lost it."""
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
    """Make sure that every row has a shard.

    Raises:
        StoreError: One was removed from the store while the page was written.
    """
    if len(shard_of) != rows:
        raise StoreError(f"{rows - len(shard_of)} trajectories vanished while the page was made")


def entry(row: int, content: Mapping[str, Any], pictures: Iterable[str]) -> Entry:
    """Return a trajectory's entry."""
    return Entry(row, safe_json(content), tuple(dict.fromkeys(pictures)))
