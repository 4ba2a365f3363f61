"""Pictures from files, bytes, arrays or PIL, made RGB and small enough, in bounded memory.

The environment makes one picture within ``max_pixels``; what the policy sees and what its code
finds as ``input_image`` are that picture, so that coordinates agree.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEFAULT_MAX_PIXELS = 16_384 * 28 * 28
"""The paper's largest picture (12.8 megapixels)."""

MOST_PIXELS = 180_000_000
"""A picture file above this is refused before it is decoded."""

MOST_STRETCHED = 200
"""Vision models refuse pictures whose long side is more than this times the short one."""

_TINY_SIDE = 28
_READABLE_SIDE = 112
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
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

Picture = Image.Image | NDArray[Any] | bytes | str | os.PathLike[str]


class PictureError(ValueError):
    """A picture cannot be used; the message says which and why."""


def load_picture(source: Picture, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Give an RGB picture of at most ``max_pixels``, upright as its EXIF data says.

    Args:
        source: A file's path, its bytes, an array ``(H, W)`` or ``(H, W, 1 | 3 | 4)``, or PIL.
        max_pixels: A larger picture is shrunk, its proportions kept.

    Raises:
        PictureError: It is missing, damaged, of an unknown format, or far too large.
    """
    if isinstance(source, Image.Image):
        return fit_picture(source, max_pixels)
    if isinstance(source, np.ndarray):
        return fit_picture(_from_array(source), max_pixels)
    name = "picture" if isinstance(source, bytes) else os.fspath(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            return _decode(file, max_pixels)
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from None
    except FileNotFoundError:
        raise PictureError(f"{name}: there is no such file") from None
    except IsADirectoryError:
        raise PictureError(f"{name}: a folder, not a picture") from None
    except _DECODER_ERRORS as error:
        raise PictureError(f"{name}: damaged or unreadable ({error})") from error


def fit_picture(image: Image.Image, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Give the picture as RGB within ``max_pixels``, its proportions kept; itself where it fits.

    A strip whose sides differ by more than `MOST_STRETCHED` times is widened in black at its right
    or lower edge, which moves no coordinate.
    """
    size = fitting_size(image.width, image.height, max_pixels)
    if size != image.size and image.mode in _REDUCIBLE:
        factor = int(min(image.width / size[0], image.height / size[1]) / 2)
        image = image.reduce(factor) if factor > 1 else image  # cheap, before any copy is made
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
    """Give the largest size of the same proportions with at most ``max_pixels``.

    >>> fitting_size(10_000, 10_000, 1_000_000)
    (1000, 1000)
    """
    if max_pixels < 1:
        raise ValueError(f"max_pixels must be at least 1, got {max_pixels}")
    longest = max(1, math.isqrt(MOST_STRETCHED * max_pixels))
    scale = min(1.0, math.sqrt(max_pixels / (width * height)), longest / max(width, height))
    if scale == 1.0:
        return width, height
    short = max(1, math.floor(min(width, height) * scale))
    long = max(1, min(math.floor(max(width, height) * scale), max_pixels // short))
    return (long, short) if width >= height else (short, long)


def presentable(image: Image.Image) -> Image.Image:
    """Give a tool's picture as a vision model can read it: tiny ones enlarged, huge ones shrunk.

    Raises:
        PictureError: Its sides differ by more than `MOST_STRETCHED` times.
    """
    short, long = sorted(image.size)
    if long > MOST_STRETCHED * short:
        raise PictureError(f"one side is over {MOST_STRETCHED} times the other")
    if short >= _TINY_SIDE:
        return fit_picture(image)
    factor = math.ceil(_READABLE_SIDE / short)
    size = (image.width * factor, image.height * factor)
    return fit_picture(as_rgb(image).resize(size, Image.Resampling.NEAREST))


def picture_array(image: Image.Image) -> NDArray[np.uint8]:
    """Give a fresh ``(H, W, 3)`` array of a picture."""
    return np.array(as_rgb(image), dtype=np.uint8)


def picture_digest(image: Image.Image) -> str:
    """Give the SHA-256 of a picture's size and RGB pixels."""
    sha = hashlib.sha256(f"{image.width} {image.height} ".encode())
    sha.update(as_rgb(image).tobytes())
    return sha.hexdigest()


def as_rgb(image: Image.Image) -> Image.Image:
    """Give the picture in RGB: transparency over white, deep grey values scaled to 8 bits."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        return _from_deep_values(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas, image).convert("RGB")
    return image.convert("RGB")


def _from_deep_values(values: NDArray[Any]) -> Image.Image:
    """Scale grey values of 16 or 32 bits, or floats, by the range that they seem to use."""
    numbers = np.nan_to_num(values.astype(np.float64))
    top = numbers.max(initial=0.0)
    full = 1.0 if values.dtype.kind == "f" and top <= 1.0 else 255.0 if top <= 255 else 65535.0
    return Image.fromarray((numbers / full * 255).clip(0, 255).astype(np.uint8)).convert("RGB")


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8:
        raise PictureError(f"an array of {array.dtype}; convert it to uint8, 0 to 255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not is_picture or 0 in array.shape:
        raise PictureError(f"an array of shape {array.shape}; (H, W) or (H, W, 1 | 3 | 4) is read")
    return as_rgb(Image.fromarray(np.ascontiguousarray(array)))


def _decode(file: BinaryIO, max_pixels: int) -> Image.Image:
    image = _open(file)
    pixels = image.width * image.height
    if pixels > MOST_PIXELS:
        raise PictureError(f"{pixels:,} pixels; at most {MOST_PIXELS:,} can be read")
    if pixels > max_pixels:  # a JPEG is then decoded at 1/2, 1/4 or 1/8 of its size
        image.draft("RGB", fitting_size(image.width, image.height, max_pixels))
    image.load()
    turned = _TURNED.get(image.getexif().get(_ORIENTATION, 1))
    image = fit_picture(image, max_pixels)
    return image if turned is None else image.transpose(turned)


def _open(file: BinaryIO) -> Image.Image:
    """Open by the file's first bytes; `Image.open` warns of large pictures by a global limit."""
    Image.init()
    prefix = file.read(16)
    for name in _FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(prefix) is True:
            file.seek(0)
            return factory(file, "")
    raise PictureError(f"not a picture in a known format ({', '.join(_FORMATS)})")
