"""Returned images: complete, independent, and as they were when they were shown."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from codedance.sandbox import Outcome
from codedance.sandbox import session as session_module
from codedance.sandbox.host.shown_pictures import as_picture, picture_memory
from PIL import Image

RED_TO_BLUE = "from PIL import Image\nx = Image.new('RGB', (300, 400), (255, 0, 0))\ndisplay(x)\n"


def test_the_fourth_bytes_of_the_pixels_are_dropped():
    memory = picture_memory((2, 1))
    memory[:] = bytes([1, 2, 3, 99, 4, 5, 6, 77])
    picture = as_picture(memory, (2, 1))
    assert (picture.mode, picture.size) == ("RGB", (2, 1))
    assert picture.tobytes() == bytes([1, 2, 3, 4, 5, 6])
    assert picture.convert("RGBA").getpixel((0, 0)) == (1, 2, 3, 255)


def test_a_returned_image_is_an_ordinary_image(full):
    with full.session([Image.effect_noise((700, 500), 90).convert("RGB")]) as session:
        (picture,) = session.run("input_image").images
        (again,) = session.run("input_image").images
    same = pickle.loads(pickle.dumps(picture))
    picture.putpixel((0, 0), (1, 2, 3))
    picture.paste((9, 9, 9), (5, 5, 8, 8))
    assert picture.getpixel((0, 0)) == (1, 2, 3)
    assert same == again != picture
    assert np.asarray(picture)[6, 6].tolist() == [9, 9, 9]
    assert picture.resize((70, 50)).size == (70, 50)


def test_an_image_is_returned_as_it_was_when_shown(isolated):
    with isolated.session() as session:
        execution = session.run(RED_TO_BLUE + "x.paste((0, 0, 255), (0, 0, 300, 400))\nx")
        colours = [image.getpixel((150, 200)) for image in execution.images]
        assert colours == [(255, 0, 0), (0, 0, 255)]


def test_an_image_opened_from_a_file_is_returned(isolated):
    with isolated.session() as session:
        session.run("from PIL import Image\nImage.new('RGB', (500, 300), (3, 2, 1)).save('x.png')")
        (picture,) = session.run("Image.open('x.png')").images
        assert (picture.size, picture.getpixel((499, 299))) == ((500, 300), (3, 2, 1))


def test_a_truncated_image_kills_only_its_session(isolated):
    broken = "import PIL.Image\nclass Half:\n    def setimage(self, *_): self.left = 2\n"
    broken += "    def encode(self, size):\n        self.left -= 1\n        if not self.left:\n"
    broken += "            raise MemoryError\n        return 0, 0, bytes(size)\n"
    broken += "PIL.Image._getencoder = lambda *_: Half()\nPIL.Image.new('RGB', (999, 999))"
    with isolated.session() as session:
        session.run("kept = 5")
        assert session.run(broken).outcome is Outcome.KILLED
        assert session.run("kept").stdout == "5\n"


def test_another_version_of_pillow_copies_all_bytes_at_once(full):
    code = "import PIL.Image\noriginal = PIL.Image._getencoder\ncalls = []\n"
    code += "class Old:\n    def setimage(self, *_): raise TypeError('1 argument, not 2')\n"
    code += "def get(*arguments):\n    calls.append(1)\n"
    code += "    return Old() if len(calls) == 1 else original(*arguments)\n"
    code += "PIL.Image._getencoder = get\nPIL.Image.new('RGB', (400, 400), (7, 8, 9))"
    with full.session() as session:
        (picture,) = session.run(code).images
        assert picture.getpixel((399, 399)) == (7, 8, 9)


@pytest.mark.parametrize(
    ("side", "most"),
    [(100, 20_000), pytest.param(4096, 33_554_432, marks=pytest.mark.slow)],
)
def test_the_pixels_of_all_blocks_together_are_limited(full, side, most):
    """Five images of 4096² would be 320 MB; those over the limit are left out, with a note."""
    code = f"from PIL import Image\nx = Image.new('RGB', ({side}, {side}), (N, 0, 0))\ndisplay(x)\n"
    with full.session() as session:
        limit_pixels(session, most)
        ends = [session.run(code.replace("N", str(number))) for number in range(2)]
        failed = session.run(f"{code.replace('N', '2')}1 / 0")
        last = session.run("print('here')\ndisplay(Image.new('RGB', (9, 9)))")
        assert session.run("x.getpixel((0, 0))").stdout == "(1, 0, 0)\n"
        state = session.snapshot()
    assert [[image.size for image in one.images] for one in ends] == [[(side, side)]] * 2
    assert [one.stderr for one in ends] == ["", ""]
    note = f"[1 more picture was left out: at most {most} pixels in all blocks together]\n"
    assert (failed.outcome, failed.images) == (Outcome.ERROR, ())
    assert failed.stderr.endswith(note)
    assert (last.outcome, last.stdout, last.images) == (Outcome.OK, "here\n", ())
    assert last.stderr == note
    with full.restore(state) as session:
        assert session.run("x.getpixel((0, 0))").stdout == "(1, 0, 0)\n"


def test_images_of_a_failed_block_count_too(full):
    code = "from PIL import Image\ndisplay(Image.new('RGB', (10, 10)))\n"
    with full.session() as session:
        limit_pixels(session, 250)
        assert len(session.run(f"{code}1 / 0").images) == 1
        assert len(session.run(f"{code * 2}display(Image.new('RGB', (7, 7)))").images) == 2


def limit_pixels(session, most):
    """Give a session another limit than its sandbox's."""
    session._home = replace(session._home, most_pixels=most)
    session._pixels_left = most


def test_a_session_keeps_no_large_images_for_its_digests(full):
    code = "from PIL import Image\nImage.new('RGB', (2048, 2048), ({}, 0, 0))"
    with full.session() as session:
        held = []
        for number in range(3):
            shown = session.run(code.format(number)).images
            held.append(sum(block.pixels for block in session._blocks) >> 20)
            assert shown
        digests = session.snapshot().output_digests
        assert held == [4, 8, 0]
        assert len(set(digests)) == 3


def test_a_turn_counts_the_pixels_of_its_own_block_alone(full, monkeypatch):
    """The cost of a turn does not grow with the number of turns before it."""
    counted = []
    monkeypatch.setattr(session_module, "_pixels", lambda one: counted.append(one) or 0)
    with full.session() as session:
        for number in range(12):
            session.run(f"print({number})")
    assert len(counted) == 12
