import io
import struct
import time
import zlib

import numpy as np
import pytest
from codedance.envs import picture as picture_module
from codedance.envs.picture import (
    PictureError,
    as_rgb,
    check_format,
    fit_picture,
    fitting_size,
    load_picture,
    picture_array,
    picture_digest,
    readable_formats,
)
from codedance.sandbox import open_sandbox
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from .toys import noise


def encoded(image, kind="PNG", **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def test_a_png_is_loaded_exactly_from_file_bytes_array_and_pil(tmp_path):
    picture = noise()
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture))
    for source in (path, str(path), encoded(picture), picture_array(picture), picture):
        assert picture_digest(load_picture(source)) == picture_digest(picture)


KINDS = ["JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"]


def skip_unless_readable(kind):
    if kind not in readable_formats():
        pytest.skip(f"this Pillow was built without {kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_every_common_format_is_read_as_rgb(kind):
    skip_unless_readable(kind)
    loaded = load_picture(encoded(noise(), kind))
    assert (loaded.mode, loaded.size) == ("RGB", (24, 16))


def test_a_missing_file_is_named():
    with pytest.raises(PictureError, match=r"nowhere\.png: there is no such file"):
        load_picture("nowhere.png")


def test_a_damaged_image_is_named(tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(encoded(noise(300, 300))[:2000])
    with pytest.raises(PictureError, match=r"cut\.png: damaged"):
        load_picture(path)


BEGINNINGS = (
    *(b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"P6 "),
    *(b"\0\0\0\x18ftypavif", b"\xff\x4f\xff\x51"),
)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # decoders warn before they fail
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@example(b"\0\0\0\0\0\0\0,\0\0\0\0\0\x06\0\xe4")
@example(b"\0\0\0\0\0\0\0,\0\0\0\0\xff\xff\xff\xff")
@given(st.binary(max_size=200))
def test_bytes_that_are_not_an_image_raise_only_our_error(data):
    for prefix in BEGINNINGS:
        try:
            load_picture(prefix + data)
        except PictureError:
            continue


def test_an_avif_file_is_upright_over_white_and_rejected_if_truncated():
    skip_unless_readable("AVIF")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGBA", (40, 20), (0, 0, 0, 0)), "AVIF", exif=exif)
    assert load_picture(data).size == (20, 40)
    assert load_picture(data).getpixel((5, 5)) == (255, 255, 255)
    with pytest.raises(PictureError, match="damaged or unreadable"):
        load_picture(data[:-20])


def test_an_unknown_format_is_rejected_with_the_supported_formats(tmp_path):
    known = ", ".join(readable_formats())
    heic = b"\0\0\0\x18ftypheic" + bytes(100)
    with pytest.raises(PictureError) as raised:
        load_picture(heic)
    assert str(raised.value) == f"picture: not a picture in a known format ({known})"
    (tmp_path / "a.png").write_bytes(heic)
    with pytest.raises(PictureError, match=r"a\.png: not a picture in a known format"):
        check_format(tmp_path / "a.png")


def test_a_format_missing_in_pillow_is_named(monkeypatch):
    skip_unless_readable("AVIF")
    data = encoded(noise(), "AVIF")
    factory, _ = Image.OPEN["AVIF"]
    monkeypatch.setitem(Image.OPEN, "AVIF", (factory, lambda prefix: "AVIF support is missing"))
    monkeypatch.setattr(picture_module, "readable_formats", lambda: ("PNG", "JPEG"))
    with pytest.raises(PictureError, match="AVIF, which the installed Pillow was built without"):
        load_picture(data)


def test_an_empty_file_and_a_folder_are_named(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(PictureError, match=r"a\.png: empty"):
        load_picture(tmp_path / "a.png")
    with pytest.raises(PictureError, match="a folder, not a picture"):
        load_picture(tmp_path)


def test_a_text_file_is_not_an_image(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_text("hello")
    with pytest.raises(PictureError, match="known format"):
        load_picture(path)


def test_a_single_pixel_is_an_image():
    assert load_picture(encoded(Image.new("RGB", (1, 1)))).size == (1, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_hundred_megapixels_are_shrunk_in_seconds(kind):
    data = encoded(Image.new("L", (10_000, 10_000), 77), kind)
    begin = time.perf_counter()
    picture = load_picture(data, max_pixels=1_000_000)
    assert time.perf_counter() - begin < 20.0
    assert picture.size == (1000, 1000)
    assert picture.getpixel((500, 500)) == (77, 77, 77)


def test_a_decompression_bomb_is_rejected_before_decoding():
    small = encoded(noise())
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + small[24:29]
    bomb = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    with pytest.raises(PictureError, match="1,600,000,000 pixels"):
        load_picture(bomb)


def test_an_image_is_rotated_by_its_exif_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (40, 20), "red")
    picture.paste("blue", (0, 0, 20, 20))
    turned = load_picture(encoded(picture, "PNG", exif=exif))
    assert turned.size == (20, 40)
    assert turned.getpixel((10, 5)) == (0, 0, 255)


def test_transparency_is_composited_over_white():
    assert as_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert as_rgb(Image.new("LA", (1, 1), (0, 255))).getpixel((0, 0)) == (0, 0, 0)


def test_deep_grey_values_are_scaled_not_clipped():
    deep = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert [as_rgb(deep).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]
    share = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert [as_rgb(share).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_a_grey_file_of_more_than_eight_bits_is_bright(kind, bits):
    values = np.array([[0, 2**bits - 1]], np.uint16)
    shown = load_picture(encoded(Image.fromarray(values), kind))
    assert [shown.getpixel((x, 0))[0] for x in range(2)] == [0, 255]


def deep_png(values, colour_type, extra=b""):
    """Encode a PNG with 16 bits per channel, which Pillow cannot write."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tRNS", extra), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
        if data or name == b"IEND"
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_colour_file_of_twelve_bits_keeps_all_of_them():
    ramp = np.arange(4096).reshape(64, 64)
    values = np.dstack([ramp, ramp[::-1], ramp // 2])
    shown = np.asarray(load_picture(deep_png(values, 2)))
    assert np.array_equal(shown, (values * (255 / 4095)).round().astype(np.uint8))


def test_a_colour_file_of_twelve_bits_with_transparency_is_composited_over_white():
    values = np.array([[[4095, 0, 0, 65535], [4095, 0, 0, 0], [0, 0, 0, 65535]]])
    seen = load_picture(deep_png(values, 6))
    assert [seen.getpixel((x, 0)) for x in range(3)] == [(255, 0, 0), (255,) * 3, (0, 0, 0)]
    clear = struct.pack(">HHH", 4095, 0, 0)
    seen = load_picture(deep_png(values[..., :3], 2, clear))
    assert [seen.getpixel((x, 0)) for x in range(3)] == [(255,) * 3, (255,) * 3, (0, 0, 0)]


def test_grey_with_opacity_of_sixteen_bits_is_bright():
    values = np.array([[[4095, 65535], [0, 65535], [0, 0]]])
    seen = load_picture(deep_png(values, 4))
    assert [seen.getpixel((x, 0))[0] for x in range(3)] == [255, 0, 255]


def test_one_transparent_colour_stays_transparent_when_an_image_is_shrunk():
    grey = Image.new("L", (64, 64), 0)
    grey.paste(200, (0, 0, 32, 64))
    shown = load_picture(encoded(grey, transparency=0), max_pixels=64)
    assert (shown.getpixel((0, 4))[0], shown.getpixel((7, 4))[0]) == (200, 255)


def test_an_array_is_shown_the_same_in_a_question_and_by_code():
    values = np.linspace(-5, 5000, 1200).reshape(30, 40)
    values[0, 0] = np.inf
    with open_sandbox("local") as sandbox, sandbox.session() as session:
        code = "import numpy as np\nx = np.linspace(-5, 5000, 1200).reshape(30, 40)\n"
        (shown,) = session.run(f"{code}x[0, 0] = np.inf\nx").images
    assert picture_digest(load_picture(values)) == picture_digest(shown)


class Tensor:
    """The interface of a tensor to numpy, as in torch and others, and nothing else."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        if self.values is None:
            raise TypeError("can't convert a tensor of another device; use .cpu() first")
        return np.asarray(self.values, dtype)


def test_a_tensor_is_read_as_an_array():
    assert load_picture(Tensor(np.ones((2, 3)))).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(PictureError, match=r"use \.cpu\(\) first"):
        load_picture(Tensor(None))


@pytest.mark.parametrize("other", [None, 5, [[1, 2], [3, 4]]])
def test_an_input_that_is_neither_file_nor_array_is_rejected(other):
    with pytest.raises(PictureError, match="give a path, bytes, an array or a PIL image"):
        load_picture(other)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.complex64),
        np.zeros((2, 2, 2), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros(3, np.uint8),
    ],
)
def test_an_array_that_is_not_an_image_is_rejected(array):
    with pytest.raises(PictureError, match="an array of"):
        load_picture(array)


def test_a_grey_array_becomes_rgb():
    for shape in ((2, 3), (2, 3, 1)):
        assert picture_array(load_picture(np.full(shape, 7, np.uint8))).tolist()[0][0] == [7, 7, 7]


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**8))
def test_the_fitted_size_is_within_the_bound_and_never_larger(width, height, max_pixels):
    new_width, new_height = fitting_size(width, height, max_pixels)
    assert 1 <= new_width <= width
    assert 1 <= new_height <= height
    assert new_width * new_height <= max_pixels


def test_a_strip_is_padded_with_black_and_its_coordinates_are_kept():
    strip = Image.new("RGB", (1000, 1), "red")
    fitted = fit_picture(strip)
    assert fitted.size == (1000, 5)
    assert fitted.getpixel((999, 0)) == (255, 0, 0)
    assert fitted.getpixel((999, 1)) == (0, 0, 0)
    assert fit_picture(Image.new("RGB", (200, 1))).size == (200, 1)


def test_max_pixels_below_one_is_rejected():
    with pytest.raises(ValueError, match="max_pixels"):
        fit_picture(noise(), 0)


@pytest.mark.parametrize("max_pixels", [1, 199, 200, 201, 799, 801, 50_000, 1_000_001])
def test_a_padded_strip_is_within_the_bound(max_pixels):
    found = fit_picture(Image.new("RGB", (1, 9000)), max_pixels)
    assert found.width * found.height <= max_pixels
    assert found.height <= 200 * found.width


def test_an_image_opened_by_pillow_is_read_like_its_file(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (30, 20), "red").save(tmp_path / "turned.jpg", exif=turned)
    with Image.open(tmp_path / "turned.jpg") as opened:
        assert load_picture(opened).size == (20, 30)
        opened.load()
        assert load_picture(opened).size == load_picture(tmp_path / "turned.jpg").size == (20, 30)
        assert load_picture(opened.crop((0, 0, 30, 10))).size == (30, 10)


def test_an_unusable_pillow_image_is_reported_like_a_file(tmp_path):
    with pytest.raises(PictureError, match="0 x 5 pixels"):
        load_picture(Image.new("RGB", (0, 5)))
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:-60])
    with (
        Image.open(tmp_path / "cut.png") as opened,
        pytest.raises(PictureError, match=r"cut\.png: damaged"),
    ):
        load_picture(opened)
