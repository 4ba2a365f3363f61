"""Input images: one sealed copy per digest, within a limit."""

import os

import pytest
from codedance.sandbox.host.pictures import PicturePool, read_pictures
from PIL import Image


def test_only_equal_pixels_have_equal_digests():
    one, same, other, shape = read_pictures(
        [
            Image.new("RGB", (4, 2), (1, 2, 3)),
            Image.new("RGB", (4, 2), (1, 2, 3)),
            Image.new("RGB", (4, 2), (1, 2, 4)),
            Image.new("RGB", (2, 4), (1, 2, 3)),
        ]
    )
    assert one.digest == same.digest
    assert len({one.digest, other.digest, shape.digest}) == 3


def test_an_image_is_shared_and_cannot_be_written_shrunk_or_grown():
    (picture,) = read_pictures([Image.new("RGB", (4, 2), (1, 2, 3))])
    pool = PicturePool()
    first, second = pool.descriptor(picture), pool.descriptor(picture)
    assert os.fstat(first).st_ino == os.fstat(second).st_ino
    assert os.pread(first, 100, 0) == bytes([1, 2, 3] * 8)
    with pytest.raises(PermissionError):
        os.pwrite(first, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(first, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(first, 100)
    for descriptor in (first, second):
        os.close(descriptor)
    pool.close()


def test_the_pool_drops_the_least_recently_used_image():
    pictures = read_pictures([Image.new("RGB", (10, 10), (n, 0, 0)) for n in range(3)])
    pool = PicturePool(most_bytes=600)
    inodes = []
    for picture in (pictures[0], pictures[1], pictures[0], pictures[2], pictures[0], pictures[1]):
        descriptor = pool.descriptor(picture)
        inodes.append(os.fstat(descriptor).st_ino)
        os.close(descriptor)
    pool.close()
    assert inodes[0] == inodes[2] == inodes[4]
    assert inodes[1] != inodes[5]


def test_an_image_larger_than_the_pool_still_works():
    (picture,) = read_pictures([Image.new("RGB", (10, 10))])
    pool = PicturePool(most_bytes=10)
    descriptor = pool.descriptor(picture)
    assert len(os.pread(descriptor, 1000, 0)) == 300
    os.close(descriptor)
    pool.close()


def test_other_modes_become_rgb():
    (picture,) = read_pictures([Image.new("L", (1, 1), 9)])
    assert picture.pixels == bytes([9, 9, 9])


def test_all_sessions_of_a_group_share_one_copy(isolated):
    """Images with equal pixels, as in the rollouts of a group."""
    before = len(isolated._pool._files)
    own = [Image.new("RGB", (31, 17), (7, 8, 9)) for _ in range(4)]
    sessions = [isolated.session([image]) for image in own]
    try:
        seen = [session.run("print(input_image.getpixel((30, 16)))").stdout for session in sessions]
        assert seen == ["(7, 8, 9)\n"] * 4
        assert len(isolated._pool._files) == min(before + 1, 64)
        sessions[0].run("input_image.putpixel((0, 0), (0, 0, 0))")
        assert sessions[1].run("print(input_image.getpixel((0, 0)))").stdout == "(7, 8, 9)\n"
    finally:
        for session in sessions:
            session.close()
