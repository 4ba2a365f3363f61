"""Image patches: a bounded cache in front of the image processor, keyed by pixels."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...envs.images.picture_memory import once_per_picture
from ...envs.picture import as_rgb

if TYPE_CHECKING:
    from PIL import Image


_MOST_SIZES = 4096


@once_per_picture
def picture_digest(image: Image.Image) -> bytes:
    """Hash mode, size and pixels, once per image; equal digests mean equal model input."""
    image = as_rgb(image)
    sha = hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode())
    sha.update(image.tobytes())
    return sha.digest()


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Vision-tower input of one image.

    Attributes:
        digest: `picture_digest` of the image.
        grid: Rows and columns of patches before merging.
        values: Levels 0 to 255 of one frame where the processor's output is a function of them,
            ``(patches, channels, side * side)`` uint8; else its output, ``(patches, width)``.
    """

    digest: bytes
    grid: tuple[int, int]
    values: np.ndarray[Any, Any]


class PictureCache:
    """LRU cache of image patches: each distinct image is processed once while it is cached.

    A still image's frames are all equal and its values take 256 levels per channel, so the levels
    of one frame are cached (an eighth of the memory). They are mapped back through a table of the
    processor's own values, so the result equals its output bit for bit.

    Args:
        processor: Qwen2-VL image processor.
        max_bytes: Cache size, in bytes; the least recently used entry is evicted first.
    """

    def __init__(self, processor: Any, *, max_bytes: int = 512 * 2**20) -> None:  # noqa: ANN401 - untyped library class
        self.processor = processor
        self.merge = int(processor.merge_size)
        self._frames = int(processor.temporal_patch_size)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[bytes, Patches] = OrderedDict()
        self._grids: dict[tuple[int, int], tuple[int, int]] = {}
        self._lock = Lock()
        self._levels = self._measure_levels()

    def token_count(self, image: Image.Image) -> int:
        """Return the number of image tokens of an image, which depends on its size alone."""
        grid = self._grids.get(image.size) or self.patches(image).grid
        return grid[0] * grid[1] // self.merge**2

    def patches(self, image: Image.Image) -> Patches:
        """Return an image's patches, from the cache where possible."""
        digest = picture_digest(image)
        with self._lock:
            found = self._known.get(digest)
            if found is not None:
                self._known.move_to_end(digest)
                return found
        made = self._process(image, digest)
        with self._lock:
            if made.values.dtype == np.uint8:
                if len(self._grids) >= _MOST_SIZES:
                    self._grids.clear()
                self._grids[image.size] = made.grid
            if digest not in self._known:
                self._known[digest] = made
                self._bytes += made.values.nbytes
            while self._bytes > self._max_bytes and len(self._known) > 1:
                self._bytes -= self._known.popitem(last=False)[1].values.nbytes
        return made

    def at_model_size(self, image: Image.Image) -> Image.Image:
        """Return the image as the model sees it, for a processor that does not resize.

        A processor that does may shrink it once more: its rule for sizes, applied twice, is not the
        rule applied once. An image that has the model's size already is returned as it is.

        Raises:
            ValueError: The processor's output is not a function of 256 levels per channel.
        """
        from PIL import Image

        side = int(self.processor.patch_size)
        if self._grids.get(image.size) == (image.height / side, image.width / side):
            return as_rgb(image)
        picture = self.patches(image)
        if picture.values.dtype != np.uint8:
            raise ValueError(
                "the image processor's values are not those of an 8-bit image: the image cannot "
                "be sent to another engine exactly"
            )
        rows, columns = (count // self.merge for count in picture.grid)
        blocks = picture.values.reshape(rows, columns, self.merge, self.merge, 3, side, side)
        shape = (rows * self.merge * side, columns * self.merge * side, 3)
        levels = blocks.transpose(0, 2, 5, 1, 3, 6, 4).reshape(shape)
        return Image.fromarray(np.ascontiguousarray(levels))

    def pixel_values(self, pictures: Sequence[Patches]) -> torch.Tensor:
        """Return the vision tower's input, ``(patches of all, width)``, float32."""
        return torch.from_numpy(np.concatenate([self._expand(p) for p in pictures]))

    def _process(self, image: Image.Image, digest: bytes) -> Patches:
        out = self.processor(images=[as_rgb(image)], return_tensors="np")
        _, rows, columns = (int(n) for n in out["image_grid_thw"][0])
        values = np.ascontiguousarray(out["pixel_values"], dtype=np.float32)
        levels = self._to_levels(values)
        return Patches(digest, (rows, columns), values if levels is None else levels)

    def _measure_levels(self) -> np.ndarray[Any, Any]:
        """Measure the processor's value of each level, ``(channels, 256)``."""
        from PIL import Image

        side = int(self.processor.patch_size) * self.merge
        ramp = np.resize(np.arange(256, dtype=np.uint8), (side, side))
        image = Image.fromarray(np.stack([ramp] * 3, axis=-1))
        out = self.processor(images=[image], do_resize=False, return_tensors="np")["pixel_values"]
        # Undo the patch order: (rows, columns, channels, frames, side, side) of one merged block.
        p = int(self.processor.patch_size)
        blocks = np.asarray(out, np.float32).reshape(self.merge, self.merge, 3, self._frames, p, p)
        plane = blocks[:, :, :, 0].transpose(2, 0, 3, 1, 4).reshape(3, side * side)
        return np.ascontiguousarray(plane[:, :256])

    def _to_levels(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
        table = self._levels
        frames = values.reshape(len(values), 3, self._frames, -1)
        step = (table[:, 255] - table[:, 0]) / 255.0
        if not np.all(step > 0):
            return None
        exact = np.rint((frames[:, :, 0] - table[None, :, :1]) / step[None, :, None])
        levels = np.clip(exact, 0, 255).astype(np.uint8)
        kept = np.stack([table[c][levels[:, c]] for c in range(3)], axis=1)
        return (
            levels
            if np.array_equal(np.broadcast_to(kept[:, :, None], frames.shape), frames)
            else None
        )

    def _expand(self, picture: Patches) -> np.ndarray[Any, Any]:
        values = picture.values
        if values.dtype != np.uint8:
            return values
        out = np.empty((len(values), 3, self._frames, values.shape[2]), np.float32)
        for channel in range(3):
            out[:, channel] = self._levels[channel][values[:, channel]][:, None]
        return out.reshape(len(values), -1)
