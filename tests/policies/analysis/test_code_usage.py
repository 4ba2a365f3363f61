import pytest
from codedance.envs.suites.nano.suite import FAMILIES, make_task
from codedance.envs.types import Difficulty
from codedance.policies.analysis.code_usage import usage_of


@pytest.mark.parametrize(
    ("block", "calls"),
    [
        ("input_image.crop((0, 0, 9, 9))", {"Image.crop"}),
        ("import cv2 as v\nv.connectedComponents(m)", {"cv2.connectedComponents"}),
        ("from cv2 import connectedComponents as c\nc(m)", {"cv2.connectedComponents"}),
        (
            "from PIL import Image as I\nI.new('L', (1, 1)).resize((2, 2))",
            {"Image.new", "Image.resize"},
        ),
        ("import PIL.Image\nPIL.Image.open('a').crop(b)", {"Image.open", "Image.crop"}),
        ("import numpy as np\na = np.array(x)\na.sum()", {"numpy.array", "ndarray.sum"}),
        ("import scipy.ndimage\nscipy.ndimage.label(m)", {"scipy.ndimage.label"}),
        ("from scipy import ndimage as nd\nnd.label(m)", {"scipy.ndimage.label"}),
        ("thing.frobnicate()", {".frobnicate"}),
        ("c = input_image.crop(b)\nc = 3\nc.crop(b)", {"Image.crop", ".crop"}),
        ("# only a comment", set()),
        ("def broken(:", set()),
    ],
)
def test_calls_are_resolved_through_imports_and_assignments(block, calls):
    assert usage_of([block]).calls == calls


def test_names_persist_from_block_to_block():
    usage = usage_of(
        ["import cv2 as v", "c = input_image.crop(b)", "v.Canny(c, 1, 2)\nc.resize(s)"]
    )
    assert usage.calls == {"Image.crop", "cv2.Canny", "Image.resize"}


def test_compositions_are_found_within_a_block_and_across_turns():
    crop = "c = input_image.crop(b)"
    count = "import cv2\nprint(cv2.connectedComponents(m))"
    assert usage_of([crop, count]).compositions == {"crop, then count"}
    assert usage_of([count, crop]).compositions == {"count, then crop"}
    assert usage_of([f"{crop}\n{count}"]).compositions == {"count + crop"}
    assert usage_of([crop]).compositions == frozenset()


@pytest.mark.parametrize(
    ("family", "techniques"),
    [
        ("digit", {"crop", "locate", "mask", "measure", "show"}),
        ("count", {"count", "mask", "measure"}),
        ("maze", {"locate", "mask", "measure", "search"}),
        ("dots", {"draw", "locate", "mask", "measure", "search", "show"}),
    ],
)
def test_the_techniques_of_the_suites_own_programs_are_recognized(family, techniques):
    question = make_task(family, Difficulty.HARD, "train", 0).question
    assert usage_of([FAMILIES[family].programs(question)["exact"]]).all_techniques == techniques


def test_code_that_would_exhaust_the_parser_has_no_usage():
    assert usage_of(["(" * 5000]).calls == frozenset()
    assert usage_of(["x = " + "-" * 20_000 + "1"]).calls == frozenset()
