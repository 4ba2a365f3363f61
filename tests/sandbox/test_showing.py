"""Values that are shown as images, and their returned form."""

import pytest

FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])"


def run(sandbox, code, images=()):
    with sandbox.session(images) as session:
        return session.run(code)


def test_an_open_figure_is_shown_once_at_the_end_of_its_block(full):
    with full.session() as session:
        execution = session.run(FIGURE)
        assert [image.size for image in execution.images] == [(640, 480)]
        assert execution.stdout == ""
        assert session.run("1").images == ()


@pytest.mark.parametrize("last", ["plt.show()", "plt.gcf()", "display(plt.gcf())", "plt.gca()"])
def test_a_figure_is_shown_once_by_any_call(full, last):
    execution = run(full, f"{FIGURE}\n{last}")
    assert (len(execution.images), execution.stdout) == (1, "")


def test_another_backend_makes_no_difference(full):
    code = f"import matplotlib\nmatplotlib.use('Agg')\n{FIGURE}\nplt.show()"
    execution = run(full, code)
    assert (len(execution.images), execution.stderr) == (1, "")


def test_the_image_contains_the_plot(full):
    code = "import matplotlib.pyplot as plt\nfig = plt.figure(facecolor=(1, 0, 0)); None"
    (image,) = run(full, code).images
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_a_closed_figure_is_not_shown(full):
    assert run(full, f"{FIGURE}\nplt.close('all')").images == ()


def test_figures_and_images_are_in_the_order_of_showing(full, picture):
    code = f"display(input_image)\n{FIGURE}\nplt.show()\ndisplay(input_image.crop((0, 0, 2, 3)))"
    sizes = [image.size for image in run(full, code, [picture]).images]
    assert sizes == [(40, 30), (640, 480), (2, 3)]


def test_a_huge_figure_is_omitted_with_a_note(full):
    execution = run(full, "import matplotlib.pyplot as plt\nplt.figure(figsize=(100, 100)); None")
    assert execution.images == ()
    assert execution.stderr.startswith("[1 more picture of 10000 x 10000 was left out: at most")


def test_image_show_returns_the_image(full, picture):
    (image,) = run(full, "input_image.show()", [picture]).images
    assert image.size == (40, 30)


def test_images_shown_before_an_error_are_returned(full, picture):
    execution = run(full, "display(input_image)\n1 / 0", [picture])
    assert len(execution.images) == 1
    assert execution.error == "ZeroDivisionError: division by zero, line 2"


@pytest.mark.parametrize("last", ["1 / 0", "x = [0] * 10**10"])
def test_open_figures_are_returned_after_an_error(full, last):
    execution = run(full, f"{FIGURE}\nprint('drawn')\n{last}")
    assert not execution.is_ok
    assert [image.size for image in execution.images] == [(640, 480)]
    assert execution.stdout == "drawn\n"


def test_a_figure_that_cannot_be_drawn_does_not_hide_the_error(full):
    code = f"{FIGURE}\nplt.title('$\\\\notacommand{{$')\n1 / 0"
    assert run(full, code).error == "ZeroDivisionError: division by zero, line 4"


@pytest.mark.parametrize(
    ("expression", "pixel"),
    [
        ("Image.new('I;16', (40, 30), 65535)", (255, 255, 255)),
        ("Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)", (0, 0, 0)),
        ("Image.fromarray(np.full((30, 40), 0.2, np.float32))", (51, 51, 51)),
        ("Image.new('I', (40, 30), 7)", (7, 7, 7)),
        ("Image.new('1', (40, 30), 1)", (255, 255, 255)),
        ("Image.new('CMYK', (40, 30), (0, 255, 255, 0))", (255, 0, 0)),
        ("Image.new('RGB', (40, 30), (9, 8, 7)).convert('P')", (9, 8, 7)),
    ],
)
def test_deep_and_flat_modes_stay_visible(full, expression, pixel):
    (image,) = run(full, f"import numpy as np\nfrom PIL import Image\n{expression}").images
    assert (image.mode, image.size) == ("RGB", (40, 30))
    assert all(abs(a - b) < 30 for a, b in zip(image.getpixel((0, 0)), pixel, strict=True))


def test_a_deep_image_is_not_clipped_at_255(full):
    code = "import numpy as np\nfrom PIL import Image\n"
    code += "Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)"
    (image,) = run(full, code).images
    assert image.getpixel((39, 29)) == (255, 255, 255)
    assert 120 <= image.getpixel((0, 15))[0] <= 135


def test_a_list_of_arrays_shaped_like_images_is_shown_one_by_one(full):
    code = "import numpy as np\n[np.zeros((9, 12, 3), np.uint8), np.zeros((20, 10), bool)]"
    assert [image.size for image in run(full, code).images] == [(12, 9), (10, 20)]


def test_the_return_value_of_a_plotting_call_is_not_printed(full):
    code = "import matplotlib.pyplot as plt\nplt.pie([1, 2])"
    execution = run(full, code)
    assert (len(execution.images), execution.stdout) == (1, "")


def test_a_table_is_shown_as_text(full):
    pytest.importorskip("pandas")
    text = "   a  b\n0  1  x\n1  2  y\n"
    code = "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})"
    assert run(full, code).stdout == text
    head, _, table = code.partition("\n")
    assert run(full, f"{head}\ndisplay({table})").stdout == text


def test_a_list_of_images_is_shown_one_by_one(full, picture):
    assert len(run(full, "[input_image, input_image]", [picture]).images) == 2


@pytest.mark.parametrize(
    "expression",
    [
        "layer",
        "display(layer)",
        "[layer, layer]",
        "np.asarray(layer)",
        "np.asarray(layer) / 255",
        "layer.convert('LA')",
        "layer.convert('RGBa')",
        "layer.quantize(4).save('p.png') or Image.open('p.png')",
        "layer.save('p.gif') or Image.open('p.gif')",
        "layer.show()",
    ],
)
def test_transparency_is_composited_over_white_by_every_way_of_showing(full, expression):
    code = "import numpy as np\nfrom PIL import Image\n"
    code += "layer = Image.new('RGBA', (40, 30), (0, 0, 0, 0))\n"
    code += f"layer.paste((0, 0, 0, 255), (0, 0, 20, 30))\n{expression}"
    image = run(full, code).images[0]
    assert (image.getpixel((0, 0)), image.getpixel((39, 0))) == ((0, 0, 0), (255, 255, 255))


def test_a_transparent_colour_is_white(full):
    code = "from PIL import Image\nx = Image.new('RGB', (4, 3), (1, 2, 3))\n"
    code += "x.info['transparency'] = (1, 2, 3)\ndisplay(x)\nx"
    assert [image.getpixel((0, 0)) for image in run(full, code).images] == [(255, 255, 255)] * 2


def test_a_figure_without_a_background_is_shown_over_white(full):
    code = "import matplotlib.pyplot as plt\n"
    code += "plt.figure(facecolor='none').add_axes((0.5, 0, 0.5, 1)).set_axis_off()\n"
    code += "plt.gca().add_patch(plt.Rectangle((0, 0), 1, 1, facecolor=(0, 0, 1, 0.5)))"
    (image,) = run(full, code).images
    assert image.getpixel((10, 10)) == (255, 255, 255)
    assert image.getpixel((500, 200))[2] == 255
    assert 120 <= image.getpixel((500, 200))[0] <= 135


@pytest.mark.parametrize("last", ["x", "display(x)", "Image.fromarray(x.astype('f4'))"])
@pytest.mark.parametrize("odd", ["inf", "-inf", "nan"])
def test_a_value_that_is_not_finite_does_not_change_the_image(full, last, odd):
    code = "import numpy as np\nfrom PIL import Image\nx = np.linspace(0, 5000, 1200)\n"
    code += f"x = x.reshape(30, 40)\nx[0, 0] = float({odd!r})\n{last}"
    execution = run(full, code)
    (image,) = execution.images
    assert image.getpixel((39, 29)) == (255, 255, 255)
    assert len(image.getcolors()) > 200
    assert execution.stderr == ""


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "CMYK", "HSV", "LAB", "I", "F"]
)
def test_every_mode_is_returned_as_rgb(full, mode):
    (image,) = run(full, f"from PIL import Image\nImage.new({mode!r}, (4, 3))").images
    assert (image.mode, image.size) == ("RGB", (4, 3))


@pytest.mark.parametrize(
    ("expression", "size", "pixel"),
    [
        ("np.full((3, 4), 7, np.uint8)", (4, 3), (7, 7, 7)),
        ("np.full((3, 4, 1), 7, np.uint8)", (4, 3), (7, 7, 7)),
        ("np.full((3, 4, 3), 7, np.uint8)", (4, 3), (7, 7, 7)),
        ("np.full((3, 4, 4), 7, np.uint8)", (4, 3), (248, 248, 248)),
        ("np.full((3, 4, 4), (7, 8, 9, 255), np.uint8)", (4, 3), (7, 8, 9)),
        ("np.ones((3, 4), bool)", (4, 3), (255, 255, 255)),
        ("np.full((30, 40), 0.2)", (40, 30), (51, 51, 51)),
        ("np.full((30, 40), 200)", (40, 30), (200, 200, 200)),
        ("np.full((30, 40), np.nan)", (40, 30), (0, 0, 0)),
        ("np.arange(900).reshape(30, 30)", (30, 30), (0, 0, 0)),
        ("np.full((30, 40, 3), (1, 2, 3), np.uint8)[:, :, ::-1]", (40, 30), (3, 2, 1)),
    ],
)
def test_arrays_shaped_like_images_are_images(full, expression, size, pixel):
    execution = run(full, f"import numpy as np\n{expression}")
    (image,) = execution.images
    assert (image.size, image.getpixel((0, 0)), execution.stdout) == (size, pixel, "")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("np.arange(3)", "array([0, 1, 2])\n"),
        ("np.eye(2)", "array([[1., 0.],\n       [0., 1.]])\n"),
        ("np.zeros((0, 5))", "array([], shape=(0, 5), dtype=float64)\n"),
        ("np.float64(2.5)", "np.float64(2.5)\n"),
    ],
)
def test_other_arrays_are_printed(full, expression, text):
    execution = run(full, f"import numpy as np\n{expression}")
    assert (execution.stdout, execution.images) == (text, ())


def test_display_prints_values_that_are_not_images(full):
    assert run(full, "display('a', 2)").stdout == "a\n2\n"


def test_display_shows_small_matrices_as_images(full):
    assert run(full, "import numpy as np\ndisplay(np.eye(2))").images[0].size == (2, 2)


def test_an_empty_image_is_omitted(full):
    execution = run(full, "from PIL import Image\nImage.new('RGB', (0, 5))")
    assert (execution.outcome, execution.images) == ("ok", ())


def test_an_image_with_a_false_size_kills_only_its_session(full):
    code = "from PIL import Image\nclass Liar(Image.Image):\n    size = (1000, 1000)\n"
    code += "    mode = 'RGB'\n    def tobytes(self, *a): return b'xyz'\nLiar()"
    with full.session() as session:
        assert session.run(code).outcome == "killed"
        assert session.run("print(1)").stdout == "1\n"


@pytest.mark.parametrize("choice", ["matplotlib.use('agg')", "plt.switch_backend('Agg')"])
def test_code_may_select_a_rendering_backend(sandbox, choice):
    code = (
        f"import matplotlib\nimport matplotlib.pyplot as plt\n{choice}\nplt.plot([1])\nplt.show()"
    )
    with sandbox.session() as session:
        execution = session.run(code)
    assert execution.error is None
    assert len(execution.images) == 1
