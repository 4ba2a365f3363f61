"""Conversion of what a block shows (images, figures, arrays) to raw RGB for the host."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .framing import PIXEL_BYTES
from .places import DRAWING
from .rgb import array_to_rgb, image_to_rgb
from .streams import Output

_draw: Any = eval(compile("lambda canvas: canvas.draw()", DRAWING, "eval"))
"""Draws a figure under a file name of its own, so that warnings name no file of the worker."""
_PART_BYTES = 65_536
_SMALLEST_MATRIX_SHOWN = 8  # a numeric matrix narrower than this is printed, not drawn


@dataclass(frozen=True)
class RawPicture:
    """An image as sent over the socket: four bytes per pixel, row by row.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        pixels: Bytes, or an RGB image that is read while it is sent.
    """

    width: int
    height: int
    pixels: Any

    @property
    def blob_bytes(self) -> int:
        """Number of bytes that `parts` yields, unless model code tampered with them."""
        if isinstance(self.pixels, bytes):
            return len(self.pixels)
        return self.width * self.height * PIXEL_BYTES

    def parts(self) -> Iterator[bytes]:
        """Yield the bytes in parts that fit into the processor's cache."""
        if isinstance(self.pixels, bytes):
            yield self.pixels
            return
        try:
            encoder = sys.modules["PIL.Image"]._getencoder("RGB", "raw", ("RGBX",))
            encoder.setimage(self.pixels.im, (0, 0, self.width, self.height))
        except (AttributeError, TypeError):  # an untested version of Pillow
            yield self.pixels.tobytes("raw", "RGBX")
            return
        state = 0
        while not state:
            _, state, part = encoder.encode(max(_PART_BYTES, self.width * PIXEL_BYTES))
            yield part
        if state < 0:
            raise OSError(f"Pillow cannot give a picture's bytes: {state}")


class Gallery:
    """Collector of the images of one block, up to the limits, with a note of what was left out.

    Args:
        stdout: Stream on which values other than images are printed.
        count: Maximum number of images per block.
        pixels: Maximum number of pixels of all images of a block.
    """

    def __init__(self, stdout: Output, count: int, pixels: int) -> None:
        self._stdout = stdout
        self._count = count
        self._pixels = pixels
        self._room = pixels
        self._pictures: list[RawPicture] = []
        self._left_out: list[str] = []

    def take(self) -> tuple[list[RawPicture], str]:
        """Return the block's images and a note of what was left out, and reset."""
        pictures, left_out = self._pictures, self._left_out
        self._pictures, self._left_out, self._room = [], [], self._pixels
        if not left_out:
            return pictures, ""
        what = f"picture of {left_out[0]} was" if len(left_out) == 1 else "pictures were"
        limit = f"at most {self._count} pictures and {self._pixels} pixels a block"
        return pictures, f"[{len(left_out)} more {what} left out: {limit}]\n"

    def display(self, *values: object) -> None:
        """Show each value: pictures, figures and arrays as pictures, the rest as text.

        Arrays are taken as RGB; one that cv2 read is BGR and must be converted first.
        """
        for value in values:
            if not self._show_picture(value, smallest=1):
                self._stdout.write(f"{value}\n")

    def show_result(self, value: Any) -> None:  # noqa: ANN401 - whatever a block ends with
        """Show the value of a block's last expression as a notebook would; None shows nothing."""
        if _is_plain_rgb(value):
            if self._has_room(*value.im.size):  # no code runs any more that could change it
                self._add(value.im.size, value)
            return
        if value is None or self._show_picture(value, smallest=_SMALLEST_MATRIX_SHOWN):
            return
        if not _is_artist(value):
            self._stdout.write(f"{value!r}\n")

    def show_figures(self, *_: object, **__: object) -> None:
        """Show and close every open pyplot figure; also stands in for ``plt.show``."""
        pyplot: Any = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        for number in pyplot.get_fignums():
            self._show_figure(pyplot.figure(number))

    def _show_picture(self, value: object, *, smallest: int) -> bool:
        """Show ``value`` if it is an image, figure or array; return whether it is."""
        if isinstance(value, (list, tuple)) and value:
            if not all(_is_picture(item, smallest) for item in value):
                return False
            for item in value:
                self._show_picture(item, smallest=smallest)
        elif _is_pil(value):
            self._add_pil(value)
        elif _is_figure(value):
            self._show_figure(value)
        elif _is_drawable_array(value, smallest):
            self._add_pil(array_to_rgb(value))
        else:
            return False
        return True

    def _show_figure(self, figure: Any) -> None:  # noqa: ANN401 - matplotlib may be absent
        pyplot: Any = sys.modules.get("matplotlib.pyplot")
        agg: Any = sys.modules.get("matplotlib.backends.backend_agg")
        canvas = figure.canvas
        if agg is not None and not hasattr(canvas, "buffer_rgba"):
            canvas = agg.FigureCanvasAgg(figure)
        width, height = canvas.get_width_height()
        if self._has_room(width, height):
            _draw(canvas)
            self._add((width, height), _figure_pixels(canvas.buffer_rgba(), (width, height)))
        if pyplot is not None:
            pyplot.close(figure)

    def _add_pil(self, picture: Any) -> None:  # noqa: ANN401 - Pillow may be absent
        if self._has_room(*picture.size):
            self._add(picture.size, image_to_rgb(picture).tobytes("raw", "RGBX"))

    def _add(self, size: tuple[int, int], pixels: object) -> None:
        self._pictures.append(RawPicture(*size, pixels))
        self._room -= size[0] * size[1]

    def _has_room(self, width: int, height: int) -> bool:
        fits = 0 < width * height <= self._room and len(self._pictures) < self._count
        if not fits:
            self._left_out.append(f"{width} x {height}")
        return fits


def install_hooks(gallery: Gallery) -> None:
    """Make ``Image.show`` and ``plt.show`` collect images instead of opening a window."""
    warnings.filterwarnings("ignore", message=".*non-interactive, and thus cannot be shown")
    image: Any = sys.modules.get("PIL.Image")
    if image is not None:
        image.Image.show = lambda picture, *_, **__: gallery.display(picture)
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.show = lambda *_, **__: gallery.show_figures()  # matplotlib sets its signature


def _is_picture(value: object, smallest: int) -> bool:
    return _is_pil(value) or _is_figure(value) or _is_drawable_array(value, smallest)


def _is_pil(value: object) -> bool:
    image: Any = sys.modules.get("PIL.Image")
    return image is not None and isinstance(value, image.Image)


def _is_plain_rgb(value: Any) -> bool:  # noqa: ANN401 - Pillow may be absent
    """Whether it is an RGB image in memory of Pillow's own class, whose attributes are reliable."""
    image: Any = sys.modules.get("PIL.Image")
    return (
        image is not None
        and type(value) is image.Image
        and value.mode == "RGB"
        and value.im.mode == "RGB"
        and "transparency" not in value.info
    )


def _is_figure(value: object) -> bool:
    figure: Any = sys.modules.get("matplotlib.figure")
    return figure is not None and isinstance(value, figure.Figure)


def _figure_pixels(buffer: Any, size: tuple[int, int]) -> bytes:  # noqa: ANN401 - of matplotlib
    """Return the bytes of a canvas, composed over white where it is transparent."""
    import numpy
    from PIL import Image

    if numpy.asarray(buffer)[:, :, 3].min() == 255:
        return bytes(buffer)
    picture = Image.frombuffer("RGBA", size, buffer, "raw", "RGBA", 0, 1)
    return image_to_rgb(picture).tobytes("raw", "RGBX")


def _is_artist(value: object) -> bool:
    """Whether it is the result of a plotting call: the figure is shown, not its repr."""
    artist: Any = sys.modules.get("matplotlib.artist")
    if artist is None:
        return False
    if isinstance(value, (list, tuple)) and value:
        return all(_is_artist(item) for item in value)
    kind: str = type(value).__module__
    return isinstance(value, artist.Artist) or kind == "matplotlib.container"


def _is_drawable_array(value: Any, smallest: int) -> bool:  # noqa: ANN401 - numpy may be absent
    """Whether it is an array with an image's shape: bytes of any size, numbers above a size."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray) or value.size == 0:
        return False
    is_shaped = value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4))
    if not is_shaped or value.dtype.kind not in "buif":
        return False
    return value.dtype in (numpy.uint8, numpy.bool_) or min(value.shape[:2]) >= smallest
