"""Conversion of any image or array to RGB, for questions and for what code shows.

- Transparency, in whichever form a mode or a file stores it, is composed over white.
- 8-bit values are unchanged.
- Deeper values are mapped by a scale that fits them: booleans and floats from 0 to 1 become 0 to
  255; values from 0 to 255 that would not be nearly black are unchanged; all others are mapped by
  their own finite range (a 16-bit file rarely uses all of its bits, and does not specify which).
  Infinite values are the darkest and the brightest, NaN is black.

Both the sandbox's worker and the host load this file: it imports numpy and Pillow on use.
"""

from __future__ import annotations

from typing import Any

_NEARLY_BLACK = 32  # deeper values that stay below this of 255 are mapped by their range
_MOST_OF_ONE = 2.0  # values up to this are shares of 1 that overshoot, not of 255
_BLOCK_VALUES = 1 << 20  # converted at a time, so that no copy of a large image is made in float64
_LARGEST = 8e307  # half of float64's range, so that no difference of two is infinite


def image_to_rgb(image: Any) -> Any:  # noqa: ANN401 - Pillow may be absent
    """Return a PIL image of any mode in RGB; the image itself where it is plain RGB.

    Raises:
        ValueError: Pillow cannot convert its mode.
    """
    transparency = image.info.get("transparency")
    if image.mode == "RGB" and transparency is None:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _deep_to_rgb(image, transparency)
    if _has_alpha(image, transparency):
        return _over_white(image)
    if transparency is not None:  # of a type without meaning for this mode
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def array_to_rgb(array: Any) -> Any:  # noqa: ANN401 - numpy may be absent
    """Return an array ``(H, W)`` or ``(H, W, 1 | 3 | 4)`` of numbers as an RGB image.

    Raises:
        ValueError: The array has another shape or type; the message says what to do.
    """
    import numpy
    from PIL import Image

    _check(array)
    array = _unmasked(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2 or array.shape[2] == 3:
        return Image.fromarray(numpy.ascontiguousarray(_levels(array))).convert("RGB")
    levels = numpy.dstack([_levels(array[:, :, :3]), _alpha_levels(array[:, :, 3])])
    return _over_white(Image.fromarray(levels))


def _unmasked(array: Any) -> Any:  # noqa: ANN401 - numpy may be absent
    """Return a plain array; masked values are black and excluded from the range."""
    import numpy

    if isinstance(array, numpy.ma.MaskedArray):
        masked: Any = array
        is_exact = masked.dtype.kind in "bu" and masked.dtype.itemsize == 1
        return masked.filled(0) if is_exact else masked.astype("f8").filled(numpy.nan)
    return numpy.asarray(array)


def _check(array: Any) -> None:  # noqa: ANN401 - numpy may be absent
    kind, shape = array.dtype.kind, tuple(array.shape)
    if kind == "c":
        raise ValueError(f"an array of {array.dtype}; take its np.abs, .real or .imag first")
    if kind not in "buif":
        raise ValueError(f"an array of {array.dtype}; convert it to numbers, such as uint8")
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if is_image and 0 not in shape:
        return
    hint = ""
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        hint = "; move the channels to the end with .transpose(1, 2, 0)"
    elif len(shape) == 3 and shape[2] == 2:
        hint = "; choose one of its two channels, or convert grey with alpha to RGBA"
    raise ValueError(f"an array of shape {shape}; (H, W) or (H, W, 1 | 3 | 4) is read{hint}")


def _has_alpha(image: Any, transparency: object) -> bool:  # noqa: ANN401 - Pillow may be absent
    """Whether some of the image may be transparent: by a channel, its palette or a colour."""
    mode = image.mode
    if mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return True
    if mode == "P":
        has_clear_palette = getattr(image.palette, "mode", "RGB").endswith("A")
        return has_clear_palette or isinstance(transparency, bytes | int)
    if mode == "RGB":
        return isinstance(transparency, tuple) and len(transparency) == 3
    return mode in ("L", "1") and isinstance(transparency, int)


def _over_white(image: Any) -> Any:  # noqa: ANN401 - Pillow may be absent
    from PIL import Image

    if image.mode == "La":  # Pillow turns it into LA only
        image = image.convert("LA")
    clear = image.convert("RGBA")
    canvas = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(canvas, clear).convert("RGB")


def _deep_to_rgb(image: Any, transparency: object) -> Any:  # noqa: ANN401 - Pillow may be absent
    """Map the grey values of 16 or 32 bits, or floats; the transparent value becomes white."""
    import numpy
    from PIL import Image

    values = numpy.asarray(image)
    levels = _levels(values)
    if isinstance(transparency, int):
        levels[values == transparency] = 255
    return Image.fromarray(levels).convert("RGB")


def _levels(values: Any) -> Any:  # noqa: ANN401 - numpy may be absent
    """Map an array of grey values or colours to 0 to 255, all channels by one scale."""
    import numpy

    if values.dtype == numpy.uint8:
        return values
    if values.dtype == numpy.bool_:
        return values.astype(numpy.uint8) * 255
    start, factor = _scale(*_finite_range(values), is_float=values.dtype.kind == "f")
    return _mapped(values, start, factor)


def _alpha_levels(alpha: Any) -> Any:  # noqa: ANN401 - numpy may be absent
    """Map opacity to 0 to 255, relative to 1, to 255 or to the most opaque value."""
    import numpy

    if alpha.dtype in (numpy.uint8, numpy.bool_):
        return _levels(alpha)
    high = _finite_range(alpha)[1]
    if _fits(0, high * 255):
        return _mapped(alpha, 0.0, 255.0)
    is_share = alpha.dtype.kind == "f" and high <= _MOST_OF_ONE
    return _mapped(alpha, 0.0, 255 / (high if is_share else max(high, 255.0)))


def _finite_range(values: Any) -> tuple[float, float]:  # noqa: ANN401 - numpy may be absent
    """Return the smallest and the largest finite value; zeros where there is none."""
    import numpy

    if values.dtype.kind != "f":
        return float(values.min()), float(values.max())
    is_finite = numpy.isfinite(values)
    if not is_finite.any():
        return 0.0, 0.0
    low = float(values.min(where=is_finite, initial=numpy.inf))
    high = float(values.max(where=is_finite, initial=-numpy.inf))
    return max(low, -_LARGEST), min(high, _LARGEST)


def _scale(low: float, high: float, *, is_float: bool) -> tuple[float, float]:
    """Choose the black value and the levels per unit, so that rounding clips nothing."""
    if high - low < 1e-300:  # a constant has no range: it is a share up to 1 or a level
        return 0.0, 255.0 if is_float and high < 2.0 else 1.0
    if is_float and _fits(low * 255, high * 255):
        return 0.0, 255.0
    if _fits(low, high) and high >= _NEARLY_BLACK:
        return 0.0, 1.0
    return low, 255 / (high - low)


def _fits(low: float, high: float) -> bool:
    return low > -0.5 and high < 255.5


def _mapped(values: Any, start: float, factor: float) -> Any:  # noqa: ANN401 - numpy may be absent
    import numpy

    levels = numpy.empty(values.shape, numpy.uint8)
    rows = max(1, _BLOCK_VALUES // values[0].size)
    with numpy.errstate(all="ignore"):
        for top in range(0, len(values), rows):
            block = values[top : top + rows].astype(numpy.float64)
            block -= start
            block *= factor
            numpy.nan_to_num(block, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
            levels[top : top + rows] = block.clip(0, 255).round()
    return levels
