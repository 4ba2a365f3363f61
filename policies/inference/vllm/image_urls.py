"""Images as data URLs at the model's size, encoded once while they are in a bounded cache."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from ...models.pictures import PictureCache, picture_digest
from ..openai_client import data_uri

if TYPE_CHECKING:
    from PIL import Image


class ImageUrls:
    """LRU cache of data URLs by pixels; thread-safe.

    An image goes out again with each turn, since a server may have forgotten it. The cache has to
    hold the images of all episodes under way: with fewer, each would be encoded again every turn.

    Args:
        pictures: Image preprocessing of the model.
        max_bytes: Cache size, in bytes; the least recently used entry is evicted first.
    """

    def __init__(self, pictures: PictureCache, *, max_bytes: int = 2**30) -> None:
        self._pictures = pictures
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._lock = Lock()

    def url(self, image: Image.Image) -> str:
        """Return the data URL of an image as the model sees it, a lossless PNG.

        Raises:
            ValueError: The image processor's output is not that of an 8-bit image.
        """
        digest = picture_digest(image)
        with self._lock:
            if (found := self._known.get(digest)) is not None:
                self._known.move_to_end(digest)
                return found
        made = data_uri(self._pictures.at_model_size(image))
        with self._lock:
            if digest not in self._known:
                self._known[digest] = made
                self._bytes += len(made)
            while self._bytes > self._max_bytes and len(self._known) > 1:
                self._bytes -= len(self._known.popitem(last=False)[1])
        return made
