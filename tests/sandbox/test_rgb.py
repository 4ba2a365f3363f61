"""The rule that converts any image or array to RGB, with values calculated by hand."""

import io

import numpy as np
import pytest
from codedance.sandbox.worker.rgb import array_to_rgb, image_to_rgb
from PIL import Image

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def row(image):
    image = image_to_rgb(image)
    assert image.mode == "RGB"
    return [image.getpixel((x, 0)) for x in range(image.width)]


def greys(values, dtype=None):
    return [pixel[0] for pixel in row(array_to_rgb(np.array([values], dtype)))]


def layer():
    """Clear, opaque black, half-transparent red."""
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (255, 0, 0, 128))
    return image


def from_file(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "PA", "LA", "La"])
def test_an_alpha_channel_is_composited_over_white(mode):
    grey = layer().convert("LA")
    image = grey if mode == "LA" else grey.convert("La") if mode == "La" else layer().convert(mode)
    clear, black, half = row(image)
    assert (clear, black) == (WHITE, BLACK)
    assert half == ((165, 165, 165) if mode.lower() == "la" else (255, 127, 127))


def test_a_palette_with_transparency_is_composited_over_white_in_memory_and_from_files():
    palette = layer().quantize(4)
    assert palette.palette.mode == "RGBA"
    assert row(palette) == [WHITE, BLACK, (255, 127, 127)]
    file = from_file(palette)
    assert isinstance(file.info["transparency"], bytes)
    assert row(file) == [WHITE, BLACK, (255, 127, 127)]
    file = from_file(layer(), "GIF")
    assert isinstance(file.info["transparency"], int)
    assert row(file)[:2] == [WHITE, BLACK]


@pytest.mark.parametrize(
    ("mode", "clear", "other", "shown"),
    [
        ("RGB", (0, 0, 0), (9, 8, 7), (9, 8, 7)),
        ("L", 0, 9, (9, 9, 9)),
        ("1", 0, 1, WHITE),
        ("I;16", 0, 65535, WHITE),
    ],
)
def test_the_transparent_colour_of_a_file_is_white(mode, clear, other, shown):
    image = Image.new(mode, (2, 1), other)
    image.putpixel((0, 0), clear)
    file = from_file(image, transparency=clear)
    assert (file.mode, file.info["transparency"]) == (mode, clear)
    assert row(file) == [WHITE, shown]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "I", "F"])
@pytest.mark.parametrize("transparency", [b"xx", (1, 2), "red", None])
def test_invalid_transparency_is_ignored(mode, transparency):
    image = Image.new(mode, (2, 2))
    image.info["transparency"] = transparency
    assert image_to_rgb(image).mode == "RGB"


def test_plain_rgb_is_the_image_itself():
    image = Image.new("RGB", (2, 2), (1, 2, 3))
    assert image_to_rgb(image) is image


@pytest.mark.parametrize("bits", [1, 4, 9, 10, 12, 14, 16])
@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_a_file_of_any_depth_uses_all_levels(mode, bits):
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    values = np.array([[0, 2**bits - 1]]).astype(kind)
    assert row(Image.frombytes(mode, (2, 1), values.tobytes())) == [BLACK, WHITE]


def test_eight_bit_values_are_unchanged_even_if_dark():
    assert greys([0, 1, 12], np.uint8) == [0, 1, 12]
    assert greys([0, 100, 200], np.int64) == [0, 100, 200]
    assert greys([0, 100, 200], np.uint16) == [0, 100, 200]
    assert greys([0.2, 99.6, 200.0]) == [0, 100, 200]


@pytest.mark.parametrize(
    ("values", "dtype", "shown"),
    [
        ([0.0, 0.2, 1.0], float, [0, 51, 255]),
        ([0.0, 0.1], np.float16, [0, 25]),
        ([0.0, 0.2, 1.0 + 1e-6], float, [0, 51, 255]),  # a rounding error does not change the scale
        ([False, True], bool, [0, 255]),
        ([0.0, 0.6, 1.2], float, [0, 128, 255]),
        ([0, 1, 2], np.int32, [0, 128, 255]),  # labels: as levels they would be nearly black
        ([-10, 0, 10], np.int8, [0, 128, 255]),
        ([1000, 1500, 2000], np.uint16, [0, 128, 255]),
        ([0, 2**63], np.uint64, [0, 255]),
        ([-1.7e308, -1e307, 1.7e308], float, [0, 112, 255]),
        ([0, 4095], ">u2", [0, 255]),
    ],
)
def test_the_scale_fits_the_values(values, dtype, shown):
    assert greys(values, dtype) == shown


@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [
        (0.2, float, 51),
        (1.2, float, 255),
        (200.0, float, 200),
        (5000.0, float, 255),
        (-3.0, float, 0),
        (7, np.int64, 7),
        (65535, np.uint16, 255),
        (np.nan, float, 0),
        (np.inf, float, 255),
        (-np.inf, float, 0),
    ],
)
def test_a_constant_image_has_a_level_without_a_range(value, dtype, shown):
    assert greys([value, value], dtype) == [shown, shown]


@pytest.mark.parametrize(("odd", "shown"), [(np.inf, 255), (-np.inf, 0), (np.nan, 0)])
def test_a_value_that_is_not_finite_does_not_affect_the_scale(odd, shown):
    assert greys([odd, 1000.0, 1500.0, 2000.0]) == [shown, 0, 128, 255]
    assert greys([odd, 0.0, 0.2, 1.0], np.float32) == [shown, 0, 51, 255]


def test_masked_values_do_not_count_in_the_range():
    masked = np.ma.masked_greater(np.array([[1000.0, 2000.0, 1e9]]), 5000)
    assert [pixel[0] for pixel in row(array_to_rgb(masked))] == [0, 255, 0]


def test_colours_share_a_scale_and_opacity_has_its_own():
    deep = np.array([[[4095, 0, 2048, 65535], [4095, 0, 0, 0]]], np.uint16)
    assert row(array_to_rgb(deep[..., :3]))[0] == (255, 0, 128)
    assert row(array_to_rgb(deep)) == [(255, 0, 128), WHITE]
    shares = np.array([[[1.0, 0.0, 0.2, 1.0], [1.0, 0.0, 0.0, 0.0]]])
    assert row(array_to_rgb(shares)) == [(255, 0, 51), WHITE]
    assert row(array_to_rgb(np.array([[[9, 8, 7, 0]]], np.uint8))) == [WHITE]


def test_a_large_array_is_mapped_like_a_small_one():
    values = np.linspace(0, 4095, 3_000_000).reshape(1500, 2000)
    shown = np.asarray(array_to_rgb(values))[:, :, 0]
    assert np.array_equal(shown, (values * (255 / 4095)).round().astype(np.uint8))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 2), complex), r"complex128; take its np\.abs"),
        (np.zeros((2, 2), object), "object; convert it to numbers"),
        (np.array([["a"]]), "convert it to numbers"),
        (np.zeros((3, 8, 9)), r"shape \(3, 8, 9\).*transpose\(1, 2, 0\)"),
        (np.zeros((8, 9, 2)), "one of its two channels"),
        (np.zeros(3), r"\(H, W\) or \(H, W, 1 \| 3 \| 4\)"),
        (np.zeros((0, 2, 3)), r"shape \(0, 2, 3\)"),
    ],
)
def test_the_error_for_an_invalid_image_says_what_to_do(array, words):
    with pytest.raises(ValueError, match=words):
        array_to_rgb(array)


def test_opacity_slightly_above_one_is_still_scaled_by_one():
    grey = np.linspace(0.0, 1.0, 64, dtype=np.float32).reshape(8, 8)
    values = np.dstack([grey, grey, grey, np.ones_like(grey)])
    for overshoot in (1.001, 1.003, 1.05, 1.2, 2.0):
        values[0, 0, 3] = overshoot
        low, high = array_to_rgb(values).getextrema()[0]
        assert low <= 255 - round(255 / overshoot) + 1
        assert high == 255
