"""Any file of tasks yields playable tasks, or one error with file and line."""

from __future__ import annotations

import base64
import io
import json
import re

import pytest
from codedance.envs import load_suite
from codedance.envs.grading import grade
from codedance.envs.picture import PictureError
from codedance.envs.suites import SuiteError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from .settings import examples
from .test_replies import json_values, replies, texts

pytestmark = pytest.mark.slow

_BUFFER = io.BytesIO()
Image.new("RGB", (32, 32), "white").save(_BUFFER, "PNG")
PICTURE = base64.b64encode(_BUFFER.getvalue()).decode()
pictures = st.one_of(
    st.just("a.png"),
    st.sampled_from(["b.png", "", ".", "..", "/", "no.png", "a.png\x00", "half.png", "empty.png"]),
    st.sampled_from([PICTURE, "data:image/png;base64," + PICTURE, PICTURE[:-9], "http://a/b.png"]),
    json_values,
)
rows = st.fixed_dictionaries(
    {
        "image": st.one_of(st.just("a.png"), pictures, st.lists(pictures, max_size=3)),
        "question": st.one_of(st.just("?"), replies, json_values),
        "answer": st.one_of(st.just("5"), st.just("B"), replies, json_values),
    },
    optional={
        "id": json_values,
        "answer_type": st.one_of(
            json_values, st.sampled_from(["text", "integer", "number", "choice", "boolean", "int"])
        ),
        "options": st.one_of(
            json_values,
            st.lists(texts, max_size=5),
            st.dictionaries(st.sampled_from(["A", "B", "C", "a", "1", "2"]), texts, max_size=4),
        ),
        "tolerance": json_values,
        "family": json_values,
        "split": st.one_of(json_values, st.sampled_from(["train", "test"])),
        "difficulty": st.one_of(json_values, st.sampled_from(["easy", "hard"])),
        "pass_rate": json_values,
        "images": json_values,
    },
)
lines = st.one_of(
    rows.map(json.dumps), st.sampled_from(["", " ", "{", "[]", "null", "\ufeff{}", '{"a": NaN}'])
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("rows")
    Image.new("RGB", (32, 32), "white").save(made / "a.png")
    (made / "half.png").write_bytes((made / "a.png").read_bytes()[:40])
    (made / "empty.png").write_bytes(b"")
    return made


@given(found=st.lists(lines, min_size=1, max_size=3), answer=replies)
@examples(1500)
def test_any_rows_are_tasks_or_an_error_with_file_and_line(folder, found, answer):
    path = folder / "mine.jsonl"
    path.write_bytes("\n".join(found).encode("utf-8", "surrogatepass"))
    try:
        suite = load_suite(path, split="test")
        tasks = [suite[index] for index in range(len(suite))]
    except (SuiteError, PictureError) as error:
        assert path.name in str(error).splitlines()[0]
        assert re.search(r"line \d", str(error)) or "no task" in str(error)
        assert len(str(error)) < 1500  # never an image's data
        return
    for task in tasks:
        assert {image.mode for image in task.images} <= {"RGB"}
        assert grade(task, answer) in (0.0, 1.0)
        task.question.encode()


@given(st.binary(max_size=200))
@examples(300)
def test_any_bytes_cause_no_traceback(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(SuiteError, match=re.escape(path.name)):
        load_suite(path, split="test")
