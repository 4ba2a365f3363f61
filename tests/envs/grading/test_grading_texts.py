"""Grading of yes and no and of plain texts, and the time to read any text."""

import pytest
from codedance.envs.grading import grade, last_number
from codedance.envs.grading.kinds import kind_of
from codedance.envs.grading.options import chosen
from codedance.envs.grading.verdicts import truth_of
from codedance.envs.types import AnswerKind

from ..toys import make_task


@pytest.mark.parametrize(
    ("truth", "texts"),
    [
        (
            True,
            ("Yes, right next to the door.", "Yes, there is no problem.", "Yes, a death notice."),
        ),
        (True, ("**Yes**", "\uff39\uff25\uff33", "yeah", "I think yes", "The answer is yes.")),
        (
            True,
            ("Yes \u2014 it is on the wrong side", "Yes - the right one", "Yes, that is not wrong"),
        ),
        (False, ("No, it is on the right.", "No, the car on the right is blue.", '"No"', "Nope")),
        (False, ("no, that is not right", "Well, no, it is right there", "Answer: no", "not yes")),
        (False, ("The answer is no, it's on the right", "there is no cat", "No cat is visible")),
        (None, ("yes and no", "yes or no", "Yes/No", "maybe", "Notice", "no doubt", "")),
    ],
)
def test_a_leading_yes_or_no_decides(truth, texts):
    assert {text: truth_of(text) for text in texts} == dict.fromkeys(texts, truth)


@pytest.mark.parametrize(
    ("truth", "texts"),
    [
        (
            True,
            ("That is right.", "right", "Right.", "Correct!", "You are absolutely right", "True."),
        ),
        (True, ("That's right, there is a dog", "Right, the box is red", "It is not false")),
        (True, ("This statement is true for both images.", "That is right because both are red")),
        (False, ("That's wrong", "That isn't right", "It would be wrong", "It cannot be right")),
        (False, ("I don't think that is right", "not true", "This is a false statement")),
        (None, ("It is on the right.", "The right one", "It is on the wrong side.", "right side")),
        (None, ("It is right of the door", "Turn right", "left or right", "Right-hand side")),
        (None, ("It's right behind the car", "right now", "The correct one is on the left")),
        (None, ("the true color", "It is on its right", "This is the right answer")),
    ],
)
def test_right_and_wrong_are_verdicts_not_directions(truth, texts):
    assert {text: truth_of(text) for text in texts} == dict.fromkeys(texts, truth)


SAME = [
    (
        "black",
        ("Black.", '"black"', "**black**", "_black_", "\u201cblack\u201d", "\u00abblack\u00bb"),
    ),
    (
        "black",
        ("`black`", "**Black.**", "black\u2026", "black?!", "  black\n", "(black)", "black,"),
    ),
    ("black cat", ("black\u00a0cat", "black\u3000cat", "**black** cat", "\uff42lack cat")),
    ("caf\u00e9", ("cafe\u0301", "CAFE\u0301.", "\u00abcaf\u00e9\u00bb")),
    ("don\u2019t walk", ("don't walk", "Don't walk!")),
    ("\u9ed2", ("\u9ed2\u3002", "\u300c\u9ed2\u300d")),
    ("Qu\u00e9", ("\u00bfQue\u0301?",)),
    ("2010-2015", ("2010\u20132015",)),
    ("U.S.", ("u.s.", "U.S")),
    ("?", ("?",)),
]
OTHER = [
    ("black", ("blacker", "black or white", "the black", "blackblack")),
    ("U.S.", ("US",)),
    ("3.5", ("35",)),
    ("5%", ("5",)),
    ("-5", ("5",)),
    (".5", ("5",)),
    ("10\u00b2", ("102",)),
    ("C++", ("C", "C#")),
    ("A*", ("A",)),
    ("don't", ("dont",)),
    ("a-b", ("ab",)),
    ("[3, 4]", ("(3, 4)",)),
    ("6'2\"", ("6'2",)),
    ("?", ("!", "")),
]


@pytest.mark.parametrize(
    ("truth", "answers", "score"), [(*row, 1.0) for row in SAME] + [(*row, 0.0) for row in OTHER]
)
def test_texts_are_compared_without_outer_marks_and_unicode_form(truth, answers, score):
    task = make_task(answer=truth, answer_kind=AnswerKind.TEXT)
    assert [grade(task, answer) for answer in answers] == [score] * len(answers)


HOSTILE = (
    *(
        "9",
        "1 234 ",
        "1,",
        "12,",
        "1/",
        "2-",
        "1.",
        "1_",
        "'5",
        "1 ",
        "4 or ",
        "999^999 ",
        "1e999 ",
    ),
    *("one ", "one hundred and ", "minus ", "a ", "A ", "A. ", "a-", "red-", "\u00bd", "\ufdfa"),
    *(
        " ",
        "5          ",
        "\\frac{1",
        "\\boxed{",
        "^{",
        "**",
        "*a",
        "_a_ ",
        "~~a",
        "(",
        '"',
        "[",
        "`",
    ),
    *("not ", "not red or ", "neither red, ", "red and blue ", "answer is A or ", "is right and "),
    *("no ", "yes ", "don't think it is right ", "is not ", "\u0301", "\u200b", "\ud800", "...."),
)


def read_in_every_way(text):
    grade(make_task(answer="x", answer_kind=AnswerKind.TEXT), text)
    chosen(text, ("red", "blue", "4 cm"))
    for read in (last_number, truth_of, kind_of):
        read(text)


@pytest.mark.parametrize("unit", HOSTILE)
def test_no_pattern_backtracks_over_a_text(unit):
    read_in_every_way(unit * (5_000 // len(unit)) + "x")


@pytest.mark.slow
@pytest.mark.parametrize("unit", HOSTILE)
def test_no_reader_takes_quadratic_time(unit):
    """In quadratic time, four times the characters would take sixteen times as long."""
    read_in_every_way(unit * (20_000 // len(unit)) + "x")
