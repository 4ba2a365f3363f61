import pytest
from codedance.envs.grading import (
    GradingError,
    check_gradable,
    grade,
    last_integer,
    last_number,
    register_grader,
)
from codedance.envs.grading.options import chosen
from codedance.envs.grading.verdicts import truth_of
from codedance.envs.types import AnswerKind
from hypothesis import given
from hypothesis import strategies as st

from ..toys import make_task

COUNTS = [
    ("3", 3),
    ("three", 3),
    ("3.", 3),
    ("3.0", 3),
    ("There are 3 dogs", 3),
    ("2 or 3", 3),
    ("twenty", 20),
    ("about twenty-one", 21),
    ("twenty one", 21),
    ("none", 0),
    ("", None),
    ("13", 13),
    ("1,000", 1000),
    ("12,345,678", 12345678),
    ("-2", -2),
    ("\u22122", -2),
    ("3-5", 5),
    ("I see two cats and three dogs", 3),
    ("no dogs", None),
    ("a dozen eggs", None),
    ("one hundred", 100),
    ("a hundred", 100),
    ("two hundred and five", 205),
    ("sixty-seventeen", 17),
    ("3.5", None),
    ("5 (2.5 a row)", 5),
    ("someone", None),
    ("1e2", 100),
    ("\u0665", 5),
]


@pytest.mark.parametrize(("text", "count"), COUNTS)
def test_the_last_integer_is_read(text, count):
    assert last_integer(text) == count


@given(st.integers(0, 10**9))
def test_every_integer_is_read_with_and_without_commas(number):
    assert last_integer(f"It is {number:,}.") == number
    assert last_integer(str(-number)) == -number


@given(st.text(max_size=80))
def test_no_answer_makes_a_grader_raise(text):
    for kind, answer in [("integer", "5"), ("number", "0.5"), ("boolean", "yes"), ("text", "a")]:
        assert grade(make_task(answer_kind=AnswerKind(kind), answer=answer), text) in (0.0, 1.0)
    task = make_task(answer_kind=AnswerKind.CHOICE, answer="A", choices=("red", "dark red"))
    assert grade(task, text) in (0.0, 1.0)


def test_a_number_with_thousands_of_digits_is_wrong():
    assert grade(make_task(answer="5"), "9" * 100_000) == 0.0
    number = make_task(answer="5", answer_kind=AnswerKind.NUMBER)
    assert grade(number, f"{'9' * 5000}.{'9' * 5000}e99") == 0.0


def test_a_longer_number_does_not_contain_a_shorter_one():
    assert grade(make_task(answer="3"), "13") == 0.0
    assert grade(make_task(answer="13"), "13") == 1.0


def test_no_answer_is_wrong():
    assert grade(make_task(), None) == 0.0


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        ("42", True),
        ("44.1", True),  # exactly 5 %, which binary fractions miss
        ("39.9", True),
        ("44.11", False),
        ("39.89", False),
        ("42 %", True),
        ("$42", True),
        ("-42", False),
        ("nan", False),
        ("inf", False),
        ("forty-two", True),
    ],
)
def test_a_number_may_differ_by_its_relative_tolerance(answer, is_right):
    task = make_task(answer="42", answer_kind=AnswerKind.NUMBER, tolerance=0.05)
    assert grade(task, answer) == float(is_right)


def test_a_number_without_tolerance_is_exact():
    task = make_task(answer="0.1", answer_kind=AnswerKind.NUMBER)
    assert [grade(task, text) for text in ("0.1", ".10", "1e-1", "1/10", "0.10001")] == [
        1.0,
        1.0,
        1.0,
        1.0,
        0.0,
    ]


def test_a_true_answer_of_zero_requires_zero():
    task = make_task(answer="0", answer_kind=AnswerKind.NUMBER, tolerance=0.5)
    assert (grade(task, "0.0"), grade(task, "0.001")) == (1.0, 0.0)


def test_a_ratio_with_denominator_zero_is_not_a_number():
    assert last_number("1/0") is None


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("B", 1),
        ("b", 1),
        ("(B)", 1),
        ("B.", 1),
        ("**B**", 1),
        ("Option B", 1),
        ("The answer is B.", 1),
        ("blue", 1),
        ("Blue.", 1),
        ("B. blue", 1),
        ("B) dark blue", None),
        ("dark blue", 2),
        ("The color is blue", 1),
        ("It is dark blue", 2),
        ("A red glove is visible so the answer is B", 1),
        ("red or blue", None),
        ("A or B", None),
        ("E", None),
        ("", None),
        ("Reading it is impossible", None),
    ],
)
def test_an_option_is_selected_by_letter_or_text(answer, index):
    assert chosen(answer, ("red", "blue", "dark blue")) == index


def test_the_true_option_may_be_stored_as_letter_or_text():
    for truth in ("B", "blue"):
        task = make_task(answer=truth, answer_kind=AnswerKind.CHOICE, choices=("red", "blue"))
        assert (grade(task, "(B)"), grade(task, "blue"), grade(task, "A")) == (1.0, 1.0, 0.0)


def test_numeric_options_are_selected_by_text_before_letter():
    task = make_task(answer="C", answer_kind=AnswerKind.CHOICE, choices=("3", "4", "5"))
    assert (grade(task, "5"), grade(task, "4")) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("yes", True),
        ("True.", True),
        ("No", False),
        ("FALSE", False),
        ("no, that is not true", False),
        ("It isn't correct", False),
        ("The statement is true", True),
        ("yes and no", None),
        ("maybe", None),
        ("t", True),
        ("know", None),
    ],
)
def test_yes_and_true_mean_the_same(text, truth):
    assert truth_of(text) is truth


def test_texts_are_compared_without_case_and_spaces():
    task = make_task(answer="Stra\u00dfe 7", answer_kind=AnswerKind.TEXT)
    assert grade(task, "  STRASSE   7\n") == 1.0
    assert grade(task, "Strasse 77") == 0.0


@pytest.mark.parametrize(
    ("kind", "answer"),
    [("integer", "many"), ("number", "?"), ("boolean", "maybe"), ("choice", "purple")],
)
def test_a_task_with_an_unreadable_answer_is_rejected(kind, answer):
    task = make_task(answer=answer, answer_kind=AnswerKind(kind), choices=("red", "blue"))
    with pytest.raises(GradingError, match="toy/counting/train/0"):
        check_gradable(task)


def test_a_grader_can_be_replaced_for_a_kind():
    from codedance.envs import grading

    before = grading._GRADERS[AnswerKind.TEXT]
    try:
        register_grader(AnswerKind.TEXT)(lambda task, answer: answer.startswith(task.answer))
        assert grade(make_task(answer="ab", answer_kind=AnswerKind.TEXT), "abc") == 1.0
    finally:
        register_grader(AnswerKind.TEXT)(before)
