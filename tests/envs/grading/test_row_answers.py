"""Options and answers of a user's file, in the forms of common data sets."""

import pytest
from codedance.envs.grading import grade
from codedance.envs.suites import SuiteError
from codedance.envs.suites.formats.row_answers import read_row_answer
from codedance.envs.types import AnswerKind

from ..toys import make_task


def scores(row, *answers):
    read = read_row_answer(row)
    task = make_task(answer=read.text, answer_kind=read.kind, choices=read.choices)
    return [grade(task, answer) for answer in answers]


UNSORTED = {"C": "red", "A": "blue", "B": "green"}


@pytest.mark.parametrize("answer", ["A", "a", "(A)", "blue", "Blue."])
def test_the_keys_of_a_mapping_determine_the_order_of_options(answer):
    read = read_row_answer({"answer": answer, "options": UNSORTED})
    assert read.choices == ("blue", "green", "red")
    assert scores({"answer": answer, "options": UNSORTED}, "A", "blue", "C", "red") == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("options", "answer", "right", "wrong"),
    [
        ({"c": "red", "a": "blue", "b": "green"}, "b", ("B", "green"), ("A", "blue")),
        ({"2": "red", "1": "blue", "3": "x"}, "2", ("2", "red", "2. red"), ("1", "blue")),
        ({"1": "red", "0": "blue"}, 1, ("1", "red"), ("0", "blue")),
        ({"10": "x", **{str(n): f"t{n}" for n in range(1, 10)}}, "10", ("10", "x"), ("t1",)),
        ({"(B)": "red", "(A)": "blue"}, "B", ("B", "red"), ("A",)),
        ({"D": "x", "C": "y", "A": "z"}, "C", ("C", "y"), ("A", "D", "x", "B")),
        ({"A": "B", "B": "A"}, "B", ("B",), ("A",)),
        ({"first": "red", "second": "blue"}, "second", ("blue", "B"), ("red",)),
        ({"0": "2", "1": "4", "2": "8"}, "2", ("8", "2. 8"), ("4", "2")),
        (["A. red", "B. blue"], "B", ("B", "blue", "It is blue."), ("red",)),
        (["(A) red", "(B) blue"], "blue", ("B", "(B) blue"), ("A",)),
        (["B. red", "A. blue"], "A", ("A", "blue"), ("B", "red")),
        (["red", "blue"], 1, ("B", "blue"), ("A",)),
        ([2, 4, 8], 4, ("B", "4.0", "four"), ("2", "4.5")),
        ([True, False], True, ("true", "yes", "A"), ("false",)),
        (["No", "Yes"], True, ("Yes.", "B"), ("No, it is right there",)),
    ],
)
def test_the_answer_is_a_key_a_letter_a_text_or_an_index(options, answer, right, wrong):
    row = {"answer": answer, "options": options}
    assert scores(row, *right, *wrong) == [1.0] * len(right) + [0.0] * len(wrong)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answer": "D", "options": UNSORTED}, "'D' is none of the options 'blue', 'green', 'red'"),
        ({"answer": "purple", "options": UNSORTED}, "is none of the options"),
        ({"answer": "red or blue", "options": ["red", "blue"]}, "is none of the options"),
        ({"answer": "not red", "options": ["red", "blue"]}, "is none of the options"),
        ({"answer": "A. blue", "options": ["A. red", "B. blue"]}, "is none of the options"),
        ({"answer": 2, "options": ["red", "blue"]}, "index from 0"),
        ({"answer": True, "options": ["red", "blue"]}, "is none of the options"),
        ({"answer": 1, "options": [2, 4, 8]}, "is none of the options"),
        ({"answer": "A", "options": {"A": "x", "Z": "y"}}, "letters from A on"),
        ({"answer": "A", "options": {"text": ["x"], "label": ["A"]}}, "one of them is"),
        ({"answer": "A", "options": [None, "x"]}, "one of them is None"),
        ({"answer": float("nan")}, "a finite number"),
    ],
)
def test_an_answer_that_names_no_option_is_rejected(fields, message):
    with pytest.raises(SuiteError, match=message):
        read_row_answer(fields)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("1,234.5", ("1234.5", "1.234,5")),
        ("\u22125", ("-5", "minus five")),
        ("50%", ("50", "50 %", "50 percent")),
        ("$1,234.00", ("1234", "$1,234")),
        ("Yes.", ("yes", "True")),
        ("twenty-one", ("21", "twenty-one")),
        ("3/4", ("0.75", "75/100")),
        ("2 cats", ("2 cats.", "**2 Cats**")),
        ("007", ("007", '"007"')),
    ],
)
def test_a_reference_without_a_type_is_read_like_an_answer(answer, said):
    assert scores({"answer": answer}, *said) == [1.0] * len(said)


def test_a_tolerance_makes_an_integer_a_number():
    assert read_row_answer({"answer": "100", "tolerance": 0.1}).kind is AnswerKind.NUMBER
    assert read_row_answer({"answer": "100"}).kind is AnswerKind.INTEGER
