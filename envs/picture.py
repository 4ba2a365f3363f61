"""Loading of images from files, bytes, arrays or PIL, as RGB of limited size, in bounded memory.

Colours are converted by the sandbox's rule (`sandbox/worker/rgb.py`), so that a question's image
and one that code shows look alike.

The environment creates one image within ``max_pixels``; the policy's image and its code's
``input_image`` are both that image, so that coordinates agree.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, features

from ..sandbox.worker.rgb import array_to_rgb, image_to_rgb
from .images.deep_colours import deep_colours
from .images.picture_memory import once_per_picture

DEFAULT_MAX_PIXELS = 16_384 * 28 * 28
"""The paper's largest image (12.8 megapixels)."""

MOST_PIXELS = 180_000_000
"""Maximum number of pixels of a file; larger ones are refused before decoding."""

MOST_STRETCHED = 200
"""Maximum ratio of the sides of an image that vision models accept."""

_TINY_SIDE = 28
_READABLE_SIDE = 112
_FORMATS = {  # with the feature of Pillow that reads it; other formats were not requested yet
    "PNG": "zlib",
    "JPEG": "jpg",
    "WEBP": "webp",
    "GIF": None,
    "BMP": None,
    "TIFF": None,
    "PPM": None,
    "AVIF": "avif",
    "JPEG2000": "jpg_2000",
}
_PREFIX_BYTES = 16
_REDUCIBLE = ("L", "RGB", "RGBA", "CMYK")
_ORIENTATION = 0x0112
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DECODER_ERRORS = (
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


class ArrayLike(Protocol):
    """An object that numpy can convert to an array, such as a tensor."""

    def __array__(self) -> NDArray[Any]: ...


Picture = Image.Image | ArrayLike | bytes | bytearray | str | os.PathLike[str]


class PictureError(ValueError):
    """An image cannot be used; the message says which and why."""


def load_picture(source: Picture, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Return an RGB image of at most ``max_pixels``, rotated as its EXIF data says.

    Args:
        source: Path or bytes of a file, PIL image, or array (or tensor) ``(H, W)`` or
            ``(H, W, 1 | 3 | 4)`` of numbers.
        max_pixels: Maximum number of pixels; a larger image is downscaled in proportion.

    Raises:
        PictureError: The image is missing, damaged, of an unknown format, or far too large; the
            array does not have the shape of an image, or holds no real numbers.
    """
    if isinstance(source, Image.Image):
        return _from_pil(source, max_pixels)
    if isinstance(source, bytes | bytearray | str | os.PathLike):
        return _from_file(source, max_pixels)
    return fit_picture(_from_array(source), max_pixels)


def check_format(source: bytes | Path) -> None:
    """Check the first bytes of a file, or of its content, for an image format.

    Raises:
        PictureError: The file is missing, empty, or of no readable format.
    """
    with _named_errors(source):
        if isinstance(source, bytes):
            _format_of(source[:_PREFIX_BYTES])
            return
        with source.open("rb") as file:
            _format_of(file.read(_PREFIX_BYTES))


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the names of the accepted formats that the installed Pillow can read."""
    Image.init()
    return tuple(
        name
        for name, feature in _FORMATS.items()
        if name in Image.OPEN and (feature is None or features.check(feature))
    )


def fit_picture(image: Image.Image, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Return the image as RGB within ``max_pixels``, in proportion; unchanged where it fits.

    A strip whose sides differ by more than `MOST_STRETCHED` times is padded with black at its right
    or lower edge, which preserves coordinates.
    """
    size = fitting_size(image.width, image.height, max_pixels)
    is_reducible = image.mode in _REDUCIBLE and "transparency" not in image.info
    if size != image.size and is_reducible:
        factor = int(min(image.width / size[0], image.height / size[1]) / 2)
        image = image.reduce(factor) if factor > 1 else image  # cheap, before any copy
    image = as_rgb(image)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    least = math.ceil(max(size) / MOST_STRETCHED)
    if min(size) >= least:
        return image
    canvas = Image.new("RGB", (max(size[0], least), max(size[1], least)))
    canvas.paste(image)
    return canvas


def fitting_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Return the largest size of the same proportions with at most ``max_pixels``.

    >>> fitting_size(10_000, 10_000, 1_000_000)
    (1000, 1000)
    """
    if max_pixels < 1:
        raise ValueError(f"max_pixels must be at least 1, got {max_pixels}")
    longest = _longest_side(max_pixels)
    scale = min(1.0, math.sqrt(max_pixels / (width * height)), longest / max(width, height))
    if scale == 1.0:
        return width, height
    short = max(1, math.floor(min(width, height) * scale))
    long = max(1, min(math.floor(max(width, height) * scale), max_pixels // short))
    return (long, short) if width >= height else (short, long)


def _longest_side(max_pixels: int) -> int:
    """Return the length of the longest strip within ``max_pixels`` after padding."""
    side = max(1, math.isqrt(MOST_STRETCHED * max_pixels))
    wide = math.ceil(side / MOST_STRETCHED)
    if side * wide <= max_pixels:
        return side
    return max(max_pixels // wide, MOST_STRETCHED * (wide - 1))


def kept_picture(image: Image.Image) -> Image.Image:
    """Return an image that code showed as an episode keeps it: the larger original is released."""
    is_within = image.width * image.height <= DEFAULT_MAX_PIXELS
    return image if is_within else fit_picture(image, DEFAULT_MAX_PIXELS)


def presentable(image: Image.Image, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Return a tool's image in a size for vision models: tiny ones enlarged, huge ones reduced.

    Raises:
        PictureError: The sides differ by more than `MOST_STRETCHED` times.
    """
    short, long = sorted(image.size)
    if long > MOST_STRETCHED * short:
        raise PictureError(f"one side is over {MOST_STRETCHED} times the other")
    if short >= _TINY_SIDE:
        return fit_picture(image, max_pixels)
    factor = math.ceil(_READABLE_SIDE / short)
    size = (image.width * factor, image.height * factor)
    return fit_picture(as_rgb(image).resize(size, Image.Resampling.NEAREST), max_pixels)


def picture_array(image: Image.Image) -> NDArray[np.uint8]:
    """Return a new ``(H, W, 3)`` array of an image."""
    return np.array(as_rgb(image), dtype=np.uint8)


@once_per_picture
def picture_digest(image: Image.Image) -> str:
    """Return the SHA-256 of an image's size and RGB pixels, computed once per image."""
    sha = hashlib.sha256(f"{image.width} {image.height} ".encode())
    sha.update(as_rgb(image).tobytes())
    return sha.hexdigest()


def as_rgb(image: Image.Image) -> Image.Image:
    """Return the image in RGB, by the same rule as for images that code shows.

    Transparency is composed over white; values deeper than 8 bits are mapped by their range.
    """
    return image_to_rgb(image)


def _from_array(source: ArrayLike) -> Image.Image:
    if not hasattr(source, "__array__"):
        kind = type(source).__name__
        raise PictureError(f"a {kind} is not an image: give a path, bytes, an array or a PIL image")
    try:
        return array_to_rgb(np.asanyarray(source))
    except (TypeError, ValueError, RuntimeError) as error:  # the last two: tensors on other devices
        raise PictureError(str(error)) from error


def _from_pil(source: Image.Image, max_pixels: int) -> Image.Image:
    """Fit an image; one that was opened from a file but not loaded is decoded like the file."""
    if not all(source.size):
        raise PictureError(f"a picture of {source.width} x {source.height} pixels shows nothing")
    if not isinstance(source, ImageFile.ImageFile):
        return fit_picture(source, max_pixels)
    with _named_errors(getattr(source, "filename", "") or b""):
        file: Any = source.fp
        if source.tile and file is not None and source.tell() == 0:
            place = file.tell()
            try:
                return _decode(file, max_pixels)
            finally:
                file.seek(place)
        source.load()
        return _upright(fit_picture(source, max_pixels), source)


def _from_file(source: bytes | bytearray | str | os.PathLike[str], max_pixels: int) -> Image.Image:
    with _named_errors(source):
        if isinstance(source, bytes | bytearray):
            return _decode(io.BytesIO(source), max_pixels)
        with Path(source).open("rb") as file:
            return _decode(file, max_pixels)


@contextmanager
def _named_errors(source: bytes | bytearray | str | os.PathLike[str]) -> Generator[None]:
    """Convert all exceptions of a decoder to a `PictureError` that names the image."""
    name = "picture" if isinstance(source, bytes | bytearray) else os.fspath(source)
    try:
        yield
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from None
    except FileNotFoundError:
        raise PictureError(f"{name}: there is no such file") from None
    except IsADirectoryError:
        raise PictureError(f"{name}: a folder, not a picture") from None
    except _DECODER_ERRORS as error:
        raise PictureError(f"{name}: damaged or unreadable ({error})") from error


def _decode(file: BinaryIO, max_pixels: int) -> Image.Image:
    image = _open(file)
    pixels = image.width * image.height
    if pixels > MOST_PIXELS:
        raise PictureError(f"{pixels:,} pixels; at most {MOST_PIXELS:,} can be read")
    if pixels > max_pixels:  # a JPEG is then decoded at 1/2, 1/4 or 1/8 of its size
        image.draft("RGB", fitting_size(image.width, image.height, max_pixels))
    deep = deep_colours(image, lambda: _open(file))
    image.load()
    whole = image if deep is None else _from_deep_colours(deep, image.info.get("transparency"))
    return _upright(fit_picture(whole, max_pixels), image)


def _upright(image: Image.Image, source: Image.Image) -> Image.Image:
    """Rotate or flip an image by the EXIF orientation of its file."""
    turned = _TURNED.get(source.getexif().get(_ORIENTATION, 1))
    return image if turned is None else image.transpose(turned)


def _from_deep_colours(deep: NDArray[Any], transparency: object) -> Image.Image:
    image: Image.Image = array_to_rgb(deep)
    if isinstance(transparency, tuple):
        is_clear = (deep == np.array(transparency)).all(axis=2)
        image.paste("white", mask=Image.fromarray(is_clear))
    return image


def _open(file: BinaryIO) -> Image.Image:
    """Open by the file's first bytes; `Image.open` warns of large images by a global limit."""
    file.seek(0)
    factory = Image.OPEN[_format_of(file.read(_PREFIX_BYTES))][0]
    file.seek(0)
    return factory(file, "")


def _format_of(prefix: bytes) -> str:
    """Return the format of a file by its first bytes.

    Raises:
        PictureError: The format cannot be read.
    """
    if not prefix:
        raise PictureError("empty")
    readable = readable_formats()
    for name in _FORMATS:
        accepts = Image.OPEN[name][1] if name in Image.OPEN else None
        if accepts is None or not accepts(prefix):
            continue
        if name in readable:
            return name
        raise PictureError(f"{name}, which the installed Pillow was built without")
    raise PictureError(f"not a picture in a known format ({', '.join(readable)})")
