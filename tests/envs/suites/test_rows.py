"""Rows of a file: images in every form, and short errors that list all problems."""

import base64
import io
import json
import os

import pytest
from codedance.envs import load_suite
from codedance.envs.picture import PictureError, picture_digest
from codedance.envs.suites import SuiteError
from codedance.envs.suites.formats.bad_rows import BadImageError
from codedance.envs.suites.reading import read_tasks

from ..toys import noise

PICTURE = noise()


def png(picture=PICTURE):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


BASE64 = base64.b64encode(png()).decode()
DATA_URL = "data:image/png;base64," + BASE64
LONG = base64.b64encode(png(noise(200, 200))).decode()


@pytest.fixture
def load(tmp_path):
    PICTURE.save(tmp_path / "a.png")

    def load_rows(*rows):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / "mine.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return load_suite(tmp_path / "mine.jsonl")

    return load_rows


def row(**fields):
    return {"question": "How many?", "answer": "5", **fields}


@pytest.mark.parametrize(
    "image",
    [
        "a.png",
        BASE64,
        base64.urlsafe_b64encode(png()).decode().rstrip("="),
        base64.encodebytes(png()).decode(),
        DATA_URL,
        DATA_URL.replace("data:image/png;", "DATA:image/jpeg;charset=utf-8;"),
        {"path": "a.png"},
        {"bytes": BASE64, "path": "elsewhere.png"},
        {"bytes": list(png())},
        {"bytes": None, "path": DATA_URL},
    ],
)
def test_an_image_is_a_path_or_embedded_in_the_row(load, image):
    for fields in ({"image": image}, {"images": [image]}, {"images": None, "image": image}):
        (read,) = load(row(**fields))[0].images
        assert picture_digest(read) == picture_digest(PICTURE)


def test_one_row_may_have_images_of_several_forms(load):
    assert len(load(row(images=["a.png", DATA_URL, {"bytes": BASE64}]))[0].images) == 3


def test_a_path_may_be_absolute_or_contain_dots(load, tmp_path):
    (tmp_path / "deep").mkdir()
    for path in ("deep/../a.png", str(tmp_path / "a.png")):
        assert load(row(image=path))[0].images[0].size == PICTURE.size


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("https://example.org/a.png", "is a URL, and nothing is downloaded: save the picture"),
        ("s3://bucket/" + "a" * 9000, "is a URL"),
        ("data:image/png," + LONG, "a data URL without base64"),
        ("data:image/png;base64,!" + LONG, "the data URL is not base64"),
        ("data:image/png;base64,aGVsbG8=", "the data URL holds no picture"),
        ("x" + LONG, "no picture 'x.*beside the file, and it is not a picture in base64"),
        ("a" * 300 + ".png", "no picture 'aaaa"),
        ("\0", "no picture"),
        ("\ud800.png", "half of a character"),
        (".", "is a folder or a device"),
        ("pipe", "is a folder or a device"),
        ("empty.png", r"empty\.png: empty"),
        ("page.png", r"page\.png: not a picture in a known format \(PNG, "),
        (5, "paths of pictures, or pictures in base64, got 5"),
        ([], "got an empty list"),
        ([["a.png"]], r"got \['a.png'\]"),
        ({"url": LONG}, "one with 'url'"),
        ({"bytes": None, "path": None}, "one with 'bytes', 'path'"),
        ({"bytes": LONG[:-9] + "!"}, "'bytes' is not base64"),
        ({"bytes": [1, 2, 300]}, "'bytes' is not a picture"),
    ],
)
def test_a_bad_image_is_rejected_with_its_line_and_a_short_reason(load, tmp_path, image, words):
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.png").write_text("<!DOCTYPE html>")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SuiteError, match=f"mine.jsonl, line 2: .*{words}") as raised:
        load(row(image="a.png"), row(image=image))
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"question": ["a"]}, "'question' is a text"),
        ({"question": " "}, "'question' is empty"),
        ({"question": float("nan")}, "no 'question'"),
        ({"answer": ""}, "'answer' is empty"),
        ({"answer": float("nan")}, "no 'answer'"),
        ({"answer": {"a": LONG}}, "a text or a number"),
        ({"id": [1]}, "'id' is a text or a whole number"),
        ({"family": {}}, "'family' is a text"),
        ({"split": ["test"]}, "train or test"),
        ({"answer": "many " * 9000, "answer_type": "integer"}, "integer"),
    ],
)
def test_a_value_of_a_wrong_type_is_rejected_with_a_short_reason(load, fields, words):
    with pytest.raises(SuiteError, match=f"line 2: .*{words}") as raised:
        load(row(image="a.png"), row(image="a.png", **fields))
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"question": "?", "answer": 1e999, "image": "a.png"}', "not a finite number"),
        (json.dumps([row()] * 99), "expected an object"),
        (json.dumps(LONG), "expected an object"),
        ("[" * 100_000, "not JSON"),
        ('{"image": "' + LONG, "not JSON"),
        ('{"answer": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_a_line_that_is_not_a_row_is_rejected_with_a_short_reason(load, line, words):
    with pytest.raises(SuiteError, match=f"line 2: .*{words}") as raised:
        load(row(image="a.png"), line)
    assert len(str(raised.value)) < 500


def test_a_tables_placeholder_for_a_missing_value_is_absent(load):
    task = load(row(image="a.png", tolerance=float("nan"), id=None, split=None, family=None))[0]
    assert (task.id, task.family, task.tolerance) == ("mine/1", "mine", 0.0)


def test_concatenated_files_with_byte_order_marks_and_blank_lines_are_read(load):
    suite = load(row(image="a.png"), "\ufeff" + json.dumps(row(image="a.png")), "\ufeff", " \t")
    assert [task.id for task in suite] == ["mine/1", "mine/2"]


def test_an_id_equal_to_another_rows_line_number_is_rejected(load):
    with pytest.raises(SuiteError, match=r"line 2: the id 2 occurs twice.*\(line 1\)"):
        load(row(image="a.png", id="2"), row(image="a.png"))


def test_all_bad_rows_and_damaged_images_are_listed_at_once(load, tmp_path):
    (tmp_path / "cut.png").write_bytes(png()[:-30])
    with pytest.raises(SuiteError) as raised:
        load(row(image="cut.png"), row(image="b.png"), row(image="a.png"), "{", row(image=LONG[5:]))
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("mine.jsonl: 4 rows cannot be used")
    assert [line[:9] for line in lines[1:]] == [f"  line {number}:" for number in (1, 2, 4, 5)]
    assert "cut.png: damaged" in lines[1]


def test_all_bad_images_of_a_row_are_listed_at_once(load, tmp_path):
    (tmp_path / "cut.png").write_bytes(png()[:-30])
    (tmp_path / "broken.png").write_bytes(png()[:-40])
    with pytest.raises(SuiteError, match=r"line 1: .*none-1\.png.*none-2\.png"):
        load(row(images=["none-1.png", "a.png", "none-2.png"]))
    suite = load(row(images=["cut.png", "a.png", "broken.png"]))
    with pytest.raises(SuiteError, match=r"line 1: .*cut\.png.*broken\.png"):
        read_tasks(suite, [0])


def test_a_line_that_is_not_utf_8_is_listed_with_the_others(tmp_path, load):
    PICTURE.save(tmp_path / "a.png")
    lines = [json.dumps(row(image="a.png")).encode(), b'{"question": "\xe9"}', b"{"]
    (tmp_path / "latin.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(SuiteError, match=r"2 rows cannot be used\n.*line 2: not UTF-8.*\n.*line 3"):
        load_suite(tmp_path / "latin.jsonl")


def test_a_byte_order_mark_and_a_data_url_between_spaces_are_accepted(tmp_path):
    line = json.dumps(row(image=f" {DATA_URL}\n"))
    (tmp_path / "marked.jsonl").write_text(line, encoding="utf-8-sig")
    assert len(load_suite(tmp_path / "marked.jsonl")) == 1


def test_the_first_of_many_bad_rows_are_listed_and_all_are_counted(load):
    with pytest.raises(SuiteError) as raised:
        load(*[row(image=f"{number}.png") for number in range(300)])
    lines = str(raised.value).splitlines()
    assert len(lines) == 22
    assert lines[-1].startswith("  and lines 21, 22, 23, ")
    assert lines[-1].endswith(", 219, 220 and 80 more")
    assert "300 rows" in lines[0]


def test_all_damaged_images_are_listed_when_tasks_are_read_before_playing(load, tmp_path):
    (tmp_path / "cut.png").write_bytes(png()[:-30])
    suite = load(
        row(image="a.png"), row(image="cut.png"), row(image=BASE64[:-60]), row(image="a.png")
    )
    with pytest.raises(SuiteError, match="2 rows cannot be used") as raised:
        read_tasks(suite, range(4))
    assert "line 2: " in str(raised.value)
    assert "line 3: " in str(raised.value)
    with pytest.raises(SuiteError, match=r"mine\.jsonl, line 2: .*cut\.png: damaged"):
        read_tasks(suite, [0, 1])
    seen = []
    assert [task.id for task in read_tasks(suite, [3, 0], on_task=seen.append)] == [
        "mine/4",
        "mine/1",
    ]
    assert seen == [1, 2]


def test_a_damaged_image_is_both_a_suite_error_and_an_image_error(load, tmp_path):
    (tmp_path / "cut.png").write_bytes(png()[:-30])
    with pytest.raises(BadImageError) as raised:
        load(row(image="cut.png"))[0]
    assert isinstance(raised.value, SuiteError)
    assert isinstance(raised.value, PictureError)
    assert raised.value.line == 1


@pytest.mark.parametrize("key", ["tolerance", "pass_rate"])
def test_nan_is_a_missing_value_and_infinity_is_not(load, key):
    whole = json.dumps(row(image="a.png"))[:-1]
    with pytest.raises(SuiteError, match=f"line 1: '{key}' is a number from 0 to 1, got inf"):
        load(f'{whole}, "{key}": Infinity}}')
    assert len(load(f'{whole}, "{key}": NaN}}')) == 1
