"""Any input as an image yields an RGB image within bounds, or a short `PictureError`."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from codedance.envs.picture import PictureError, as_rgb, load_picture
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from .settings import examples

pytestmark = pytest.mark.slow

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV")
DEEP = ("I", "F", "I;16", "I;16B", "I;16L")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "ICO")
MOST = 50_000


def check(image):
    """Check that an accepted image is RGB, within the bound, and readable."""
    assert image.mode == "RGB"
    assert 1 <= image.width * image.height <= MOST
    assert len(image.tobytes()) == 3 * image.width * image.height


def load(source):
    """Load a source; return whether it was accepted. Pillow may warn about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check(load_picture(source, max_pixels=MOST))
        except PictureError as error:
            assert len(str(error)) < 600
            return False
    return True


@st.composite
def images(draw):
    """Small images of every mode with random pixels."""
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = generator.integers(0, 256, (height, width, 4), dtype=np.uint8)
    mode = draw(st.sampled_from(MODES + DEEP))
    if mode in DEEP:
        deep = values[:, :, 0].astype(np.int32) * draw(st.sampled_from([1, 16, 257, -3]))
        if mode == "F":
            return Image.fromarray(deep.astype(np.float32) / draw(st.sampled_from([1.0, 7e9])))
        if mode == "I":
            return Image.fromarray(deep)
        kind = ">u2" if mode == "I;16B" else "<u2"
        return Image.frombytes(mode, (width, height), np.abs(deep).astype(kind).tobytes())
    difficulties = len(Image.new(mode, (1, 1)).getbands())
    size = height * ((width + 7) // 8) if mode == "1" else width * height * difficulties
    return Image.frombytes(mode, (width, height), values.tobytes()[:size].ljust(size, b"\7"))


@given(images())
@examples(800)
def test_an_image_of_any_mode_becomes_rgb(image):
    check(as_rgb(image))
    assert load(image)


DAMAGE = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)
"""Positions in a file and their new bytes.

They do not depend on the file's length: Pillow sometimes saves a LAB image as an icon with other
bytes, and a case has to be reproducible.
"""


@given(images(), st.sampled_from(FORMATS), DAMAGE, st.one_of(st.just(1.0), st.floats(0.0, 1.0)))
@examples(2000)
def test_a_damaged_file_is_an_image_or_rejected(image, kind, damage, kept):
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind)
    except (OSError, ValueError, KeyError):
        as_rgb(image).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for place, value in damage:
        content[place % len(content)] = value
    load(bytes(content[: round(kept * len(content))]))


@given(
    hnp.arrays(
        st.one_of(
            hnp.boolean_dtypes(),
            hnp.integer_dtypes(),
            hnp.unsigned_integer_dtypes(),
            hnp.floating_dtypes(),
            hnp.complex_number_dtypes(),
            hnp.unicode_string_dtypes(max_len=3),
        ),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6),
    )
)
@examples(1500)
def test_an_array_of_any_type_and_shape_is_an_image_or_rejected(array):
    load(array)
