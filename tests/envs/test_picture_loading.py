import io
import struct
import time
import zlib

import numpy as np
import pytest
from codedance.envs.picture import (
    PictureError,
    as_rgb,
    fit_picture,
    fitting_size,
    load_picture,
    picture_array,
    picture_digest,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from .toys import noise


def encoded(image, kind="PNG", **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def test_a_png_comes_back_pixel_by_pixel_from_file_bytes_array_and_pil(tmp_path):
    picture = noise()
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture))
    for source in (path, str(path), encoded(picture), picture_array(picture), picture):
        assert picture_digest(load_picture(source)) == picture_digest(picture)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_every_common_format_is_read_as_rgb(kind):
    loaded = load_picture(encoded(noise(), kind))
    assert (loaded.mode, loaded.size) == ("RGB", (24, 16))


def test_a_missing_file_is_named():
    with pytest.raises(PictureError, match=r"nowhere\.png: there is no such file"):
        load_picture("nowhere.png")


def test_a_damaged_picture_is_named(tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(encoded(noise(300, 300))[:2000])
    with pytest.raises(PictureError, match=r"cut\.png: damaged"):
        load_picture(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # decoders warn before they give up
@given(st.binary(max_size=200))
def test_bytes_that_are_no_picture_raise_our_error_only(data):
    for prefix in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"P6 "):
        try:
            load_picture(prefix + data)
        except PictureError:
            continue


def test_a_text_file_is_no_picture(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_text("hello")
    with pytest.raises(PictureError, match="known format"):
        load_picture(path)


def test_one_pixel_is_a_picture():
    assert load_picture(encoded(Image.new("RGB", (1, 1)))).size == (1, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_hundred_megapixels_are_shrunk_in_seconds(kind):
    data = encoded(Image.new("L", (10_000, 10_000), 77), kind)
    begin = time.perf_counter()
    picture = load_picture(data, max_pixels=1_000_000)
    assert time.perf_counter() - begin < 20.0
    assert picture.size == (1000, 1000)
    assert picture.getpixel((500, 500)) == (77, 77, 77)


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    small = encoded(noise())
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + small[24:29]
    bomb = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    with pytest.raises(PictureError, match="1,600,000,000 pixels"):
        load_picture(bomb)


def test_a_picture_stands_upright_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (40, 20), "red")
    picture.paste("blue", (0, 0, 20, 20))
    turned = load_picture(encoded(picture, "PNG", exif=exif))
    assert turned.size == (20, 40)
    assert turned.getpixel((10, 5)) == (0, 0, 255)


def test_transparency_is_shown_over_white():
    assert as_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert as_rgb(Image.new("LA", (1, 1), (0, 255))).getpixel((0, 0)) == (0, 0, 0)


def test_deep_grey_values_are_scaled_not_cut():
    deep = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert [as_rgb(deep).getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]
    share = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert [as_rgb(share).getpixel((x, 0))[0] for x in range(3)] == [0, 127, 255]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.float64),
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros(3, np.uint8),
    ],
)
def test_an_array_that_is_no_picture_is_refused(array):
    with pytest.raises(PictureError, match="an array of"):
        load_picture(array)


def test_a_grey_array_becomes_rgb():
    for shape in ((2, 3), (2, 3, 1)):
        assert picture_array(load_picture(np.full(shape, 7, np.uint8))).tolist()[0][0] == [7, 7, 7]


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**8))
def test_the_size_that_fits_is_within_the_bound_and_never_larger(width, height, max_pixels):
    new_width, new_height = fitting_size(width, height, max_pixels)
    assert 1 <= new_width <= width
    assert 1 <= new_height <= height
    assert new_width * new_height <= max_pixels


def test_a_strip_is_widened_in_black_and_its_coordinates_stand():
    strip = Image.new("RGB", (1000, 1), "red")
    fitted = fit_picture(strip)
    assert fitted.size == (1000, 5)
    assert fitted.getpixel((999, 0)) == (255, 0, 0)
    assert fitted.getpixel((999, 1)) == (0, 0, 0)
    assert fit_picture(Image.new("RGB", (200, 1))).size == (200, 1)


def test_max_pixels_below_one_is_refused():
    with pytest.raises(ValueError, match="max_pixels"):
        fit_picture(noise(), 0)
