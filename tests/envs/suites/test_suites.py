import json
from pathlib import Path

import pytest
from codedance.envs import Item, load_suite, register_family
from codedance.envs.picture import PictureError
from codedance.envs.suites import SuiteError
from codedance.envs.suites import generated as families_module
from codedance.envs.suites.loading import known_suites
from codedance.envs.types import AnswerKind, Difficulty
from PIL import Image

from ..toys import noise


@pytest.fixture
def own_families(monkeypatch):
    monkeypatch.setattr(families_module, "_FAMILIES", {})


@pytest.fixture
def write(tmp_path):
    noise().save(tmp_path / "a.png")

    def write_rows(*rows, name="mine.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
        return str(path)

    return write_rows


def row(**changes):
    return {"image": "a.png", "question": "How many?", "answer": "5"} | changes


def draw_shade(rng, difficulty):
    level = int(rng.integers(256))
    return Item(f"How red, {difficulty}?", Image.new("RGB", (8, 8), (level, 0, 0)), str(level))


def test_the_embedded_suite_is_found_by_name():
    suite = load_suite("nano", split="test")
    assert (suite.name, suite.split) == ("nano", "test")
    assert suite.task(suite[5].id).question == suite[5].question


def test_a_name_may_select_families():
    whole = load_suite("nano", split="test")
    suite = load_suite("nano:maze,count", split="test")
    assert (suite.name, suite.split) == ("nano", "test")
    assert [suite[n].family for n in range(4)] == ["maze", "count"] * 2
    assert whole.task(suite[2].id).question == suite[2].question
    assert len(suite) == 285 + 286
    assert suite[570].family == "count"
    assert suite[570].id == whole[1998].id


@pytest.mark.parametrize("name", ["nano:dance", "nano:", "nano:count,"])
def test_the_error_for_an_unknown_family_lists_the_existing_ones(name):
    with pytest.raises(SuiteError, match="choose from digit, tag"):
        load_suite(name)


def test_a_suite_with_a_colon_in_its_name_is_found(own_families):
    register_family("my:shades", "red")(draw_shade)
    register_family("my:shades", "blue")(draw_shade)
    assert load_suite("my:shades").families == ("red", "blue")


def test_families_of_a_file_are_not_selected_by_name(write):
    with pytest.raises(SuiteError, match="leave out what follows the colon"):
        load_suite(write(row()) + ":clock")


@pytest.mark.parametrize("name", ["nanno", "nlvr_de", ""])
def test_the_error_for_an_unknown_suite_lists_the_existing_ones(name):
    with pytest.raises(SuiteError, match="there are nano"):
        load_suite(name)


def test_the_error_for_an_unknown_suite_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'nano'"):
        load_suite("nanno")


def test_an_unknown_split_is_rejected():
    with pytest.raises(SuiteError, match="train, test"):
        load_suite("nano", split="dev")


def test_a_custom_family_defines_a_suite(own_families):
    register_family("shades", "red")(draw_shade)
    suite = load_suite("shades", split="train")
    assert "shades" in known_suites()
    assert suite.families == ("red",)
    assert [suite[i].difficulty for i in range(4)] == [*Difficulty, Difficulty.EASY]
    task = suite[4]
    assert task.id == "shades/red/train/medium/1"
    assert suite.task(task.id).answer == task.answer
    assert {suite[i].answer for i in range(30)} != {task.answer}


def test_the_splits_of_a_custom_family_differ(own_families):
    register_family("shades", "red")(draw_shade)
    train, test = (load_suite("shades", split=split) for split in ("train", "test"))
    assert [train[i].answer for i in range(20)] != [test[i].answer for i in range(20)]
    assert len(test) == 2_000
    with pytest.raises(KeyError):
        test.task(train[0].id)


@pytest.mark.parametrize(
    "task_id", ["", "shades/red/train/easy", "shades/blue/train/easy/1", "shades/red/train/odd/1"]
)
def test_an_invalid_id_is_a_key_error(own_families, task_id):
    register_family("shades", "red")(draw_shade)
    with pytest.raises(KeyError):
        load_suite("shades").task(task_id)


def test_a_custom_family_is_added_to_the_embedded_ones(own_families):
    bare = load_suite("nano", split="test")
    register_family("nano", "shade")(draw_shade)
    joined = load_suite("nano", split="test")
    assert joined.families == (*bare.families, "shade")
    assert len(joined) == len(bare) + len(bare) // len(bare.families)
    assert joined[len(bare)].family == "shade"
    assert joined.task("nano/shade/test/easy/0").family == "shade"
    assert joined.task(bare[0].id).id == bare[0].id
    with pytest.raises(IndexError):
        joined[len(joined)]


@pytest.mark.parametrize("name", ["a/b", "", "a.jsonl"])
def test_a_name_that_would_break_ids_is_rejected(own_families, name):
    with pytest.raises(ValueError, match="cannot name"):
        register_family(name, "red")


def test_a_users_file_is_a_suite(write):
    path = write(row(), row(id="x", family="dots", answer=7, difficulty="hard"), "")
    suite = load_suite(path, split="test")
    assert (len(suite), suite.name, suite.families) == (2, path, ("mine", "dots"))
    first, second = suite[0], suite[1]
    assert (first.id, first.split, first.answer_kind) == ("mine/1", "test", AnswerKind.INTEGER)
    assert (second.id, second.answer, second.difficulty) == ("mine/x", "7", Difficulty.HARD)
    assert first.images[0].size == (24, 16)
    assert suite.task("mine/x").answer == "7"
    with pytest.raises(KeyError):
        suite.task("mine/y")
    with pytest.raises(IndexError):
        suite[2]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"answer": True}, "boolean"),
        ({"answer": "No"}, "boolean"),
        ({"answer": "1,000"}, "integer"),
        ({"answer": 2.5}, "number"),
        ({"answer": "blue", "options": ["red", "blue"]}, "choice"),
        ({"answer": "B", "options": {"A": "red", "B": "blue"}}, "choice"),
        ({"answer": "a house"}, "text"),
        ({"answer": "5", "answer_type": "text"}, "text"),
        ({"answer": "6", "answer_type": "free_form"}, "integer"),
        ({"answer": "B", "answer_type": "mcq", "options": ["1", "2"]}, "choice"),
    ],
)
def test_the_kind_of_an_answer_is_given_or_inferred(write, fields, kind):
    assert load_suite(write(row(**fields)))[0].answer_kind == kind


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ({"image": "a.png", "question": "?", "anwser": "5"}, "no 'answer'; is 'anwser' meant"),
        ({"question": "?", "answer": "5"}, "no 'image'"),
        (row(image="b.png"), "no picture 'b.png'"),
        (row(images=[]), "holds paths"),
        (row(answer=["5"]), "a text or a number"),
        (row(answer_type="integr"), "did you mean 'integer'"),
        (row(answer="many", answer_type="integer"), "holds no integer"),
        (row(answer="green", options=["red", "blue"]), "is none of"),
        (row(options="red"), "a list of texts"),
        (row(tolerance=-1), "0 to 1"),
        (row(pass_rate="high"), "0 to 1"),
        (row(difficulty=["easy"]), "easy, medium, hard"),
        (row(split="dev"), "train or test"),
    ],
)
def test_a_bad_line_is_rejected_with_its_number(write, bad, message):
    with pytest.raises(SuiteError, match=f"mine.jsonl, line 2: .*{message}"):
        load_suite(write(row(), bad))


def test_ids_must_be_unique(write):
    with pytest.raises(SuiteError, match="line 2: the id 'a' occurs twice"):
        load_suite(write(row(id="a"), row(id="a")))


def test_lines_with_splits_are_separated(write):
    path = write(row(id="a", split="test"), row(id="b"), row(id="c", split="train"))
    assert [task.id for task in load_suite(path, split="train")] == ["mine/b", "mine/c"]
    assert [task.id for task in load_suite(path, split="test")] == ["mine/a"]
    with pytest.raises(SuiteError, match="no task of split 'test'"):
        load_suite(write(row(split="train")), split="test")


def test_a_missing_empty_or_binary_file_is_named(write, tmp_path):
    with pytest.raises(SuiteError, match=r"none\.jsonl: there is no such file"):
        load_suite(str(tmp_path / "none.jsonl"))
    with pytest.raises(SuiteError, match="holds no task: it needs one JSON object per line"):
        load_suite(write())
    (tmp_path / "bad.jsonl").write_bytes(b"\xff\xfe{")
    with pytest.raises(SuiteError, match=r"bad\.jsonl, line 1: not UTF-8"):
        load_suite(str(tmp_path / "bad.jsonl"))


def test_a_damaged_image_is_named_when_its_task_is_read(write, tmp_path):
    suite = load_suite(write(row()))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(PictureError, match=r"a\.png: damaged"):
        suite[0]


def test_a_file_from_another_system_is_read(write, tmp_path):
    path = Path(write(row()))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n\r\n")
    assert len(load_suite(str(path))) == 1


def test_a_data_set_is_found_in_the_data_folder(write, tmp_path, monkeypatch):
    (tmp_path / "nlvr_dev").mkdir()
    noise().save(tmp_path / "nlvr_dev" / "a.png")
    path = write(row(answer="true", answer_type="bool"), name="nlvr_dev/data.jsonl")
    monkeypatch.setenv("CODEDANCE_DATA", str(tmp_path))
    suite = load_suite("nlvr_dev", split="test")
    assert (suite.name, suite[0].id, suite[0].family) == ("nlvr_dev", "nlvr_dev/1", "nlvr_dev")
    with pytest.raises(SuiteError, match="is a test set"):
        load_suite("nlvr_dev", split="train")
    assert load_suite(path, split="test")[0].id == "nlvr_dev/1"


def test_the_error_for_a_missing_data_set_names_the_searched_folder(monkeypatch):
    monkeypatch.delenv("CODEDANCE_DATA", raising=False)
    with pytest.raises(SuiteError, match="set CODEDANCE_DATA"):
        load_suite("nuclei_count", split="test")


def test_a_name_cannot_leave_the_data_folder(tmp_path, write, monkeypatch):
    write(row(), name="data.jsonl")
    (tmp_path / "inner").mkdir()
    monkeypatch.setenv("CODEDANCE_DATA", str(tmp_path / "inner"))
    with pytest.raises(SuiteError, match="unknown suite"):
        load_suite("..", split="test")
