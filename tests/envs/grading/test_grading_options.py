"""Selection of an option by an answer: as a number, in a sentence, by letter."""

import pytest
from codedance.envs.grading import grade
from codedance.envs.grading.options import chosen
from codedance.envs.types import AnswerKind

from ..toys import make_task

COLOURS = ("red", "blue")
SHADES = ("red", "blue", "dark blue")
NUMBERS = ("2", "4", "8")
LENGTHS = ("2 cm", "3 cm")
HALVES = ("0.5", "1.5")


def all_of(choices, place, *texts):
    return [(choices, text, place) for text in texts]


@pytest.mark.parametrize(
    ("choices", "text", "place"),
    [
        *all_of(NUMBERS, 1, "4", "4.0", "four", "4 cm", "4cm", "$4", "x=4", "2 + 2 = 4", "\uff14"),
        *all_of(NUMBERS, 1, "There are four dogs.", "not 2 but 4", "It is 4, not 8.", "8/2"),
        *all_of(NUMBERS, None, "4.5", "-4", "\u22124", "minus 4", "0.4", ".4", "14", "42", "4/5"),
        *all_of(
            NUMBERS, None, "4,000", "4 000", "4:30", "4th", "4-5", "4 to 5", "4 or 5", "4\u00bd"
        ),
        *all_of(NUMBERS, None, "4 1/2", "4^2", "4\u00b2", "4e3", "4k", "4 thousand", "twenty-four"),
        *all_of(NUMBERS, None, "A4", "4x4", "4 x 4", "4-door", "4 h 30 min", "at least 4", "<4"),
        *all_of(NUMBERS, None, "4G", "4 \u00b1 1", "4pm", "1,4", "4 and a half", "4.8.2", "4*2"),
        *all_of(
            NUMBERS, None, "more than 4", "4 or more", "not 4", "2 or 4", "2020-04-04", "three"
        ),
        *all_of(LENGTHS, 0, "2 cm", "2cm", "2.0 cm", "2", "two cm", "2 centimetres", "2-cm"),
        *all_of(LENGTHS, None, "1.2 cm", "12 cm", "-2 cm", "2 m", "2 mm", "2 cm^2", "2 cm/s"),
        *all_of(LENGTHS, None, "2-3 cm", "2,5 cm", "not 2 cm"),
        *all_of(HALVES, 0, "0.5", ".5", "0.50", "0,5", "1/2", "\u00bd", "one half"),
        *all_of(HALVES, None, "-0.5", "10.5", "0.55", "5", "50%"),
        *all_of(("$4", "$5"), 0, "$4.00", "4 dollars", "4"),
        *all_of(("50 cm\u00b2", "60 cm\u00b2"), 0, "50 cm^2", "50 cm2", "50"),
        *all_of(("10 m/s", "20 m/s"), 0, "10 m/s", "10"),
        *all_of(("3 apples", "5 apples"), 0, "3", "three apples", "3 because"),
        *all_of(("3 apples", "5 apples"), None, "3 pears", "13 apples", "3.5 apples"),
        *all_of(("2 cm", "2 m", "3 m"), None, "2", "3"),
        *all_of(("2 cm", "3 cm", "none of these"), 0, "2"),
        *all_of(("2x", "4x"), None, "2"),
        *all_of(("2:1", "3:1"), 0, "2:1", "The ratio is 2:1."),
        *all_of(("2:1", "3:1"), None, "2", "1"),
        *all_of(("less than 10", "10"), 0, "less than 10", "It is less than 10."),
        *all_of(("less than 10", "10"), None, "more than 10"),
        *all_of(("-2", "2"), 0, "-2", "The value is \u22122"),
        *all_of(("$\\frac{1}{2}$", "$\\frac{1}{4}$"), 1, "0.25", "1/4"),
        *all_of(("1 dog", "2 dogs", "3 dogs"), 1, "2", "two", "2 dogs"),
        *all_of(("1 dog", "2 dogs", "3 dogs"), 0, "1", "one dog"),
        *all_of(
            ("3", "6"), None, "\\boxed{\\sqrt{6}}", "\u221a6", "sqrt(6)", "2\\sqrt{3}", "3\u03c0"
        ),
        *all_of(("\u221a2", "2\u221a2", "4"), 0, "\u221a2", "\\sqrt{2}", "$\\sqrt2$"),
        *all_of(("\u221a2", "2\u221a2", "4"), None, "3\u221a2", "-\u221a2"),
    ],
)
def test_a_number_selects_an_option_as_a_whole_quantity(choices, text, place):
    assert chosen(text, choices) == place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        *((text, 0) for text in ("It is red.", "RED!", '"red"', "**red**", "\uff52\uff45\uff44")),
        *((text, 0) for text in ("It is red, not blue.", "not blue, red", "red rather than blue")),
        *((text, 0) for text in ("The car is not blue; it is red", "no doubt it is red")),
        *((text, 1) for text in ("not red but blue", "blue instead of red", "not red; blue")),
        *((text, 1) for text in ("red isn't right, blue is", "It can't be red, so blue")),
        *((text, None) for text in ("not red", "isn't red", "It isn\u2019t red", "no red")),
        *((text, None) for text in ("neither red nor blue", "anything but red", "other than red")),
        *(
            (text, None)
            for text in ("anything except red", "far from red", "I don't think it is red")
        ),
        *(
            (text, None)
            for text in ("red is wrong", "not blue or red", "red or blue", "red and blue")
        ),
        *((text, None) for text in ("infra-red", "non-red", "red-haired", "red/blue", "reddish")),
        *((text, None) for text in ("neither red, blue nor green", "not only red but also blue")),
    ],
)
def test_a_sentence_selects_the_option_that_it_does_not_deny(text, place):
    assert chosen(text, COLOURS) == place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        *(
            (text, 1)
            for text in ("B", "b", "(B)", "B.", "[B]", "**B**", "`B`", "Option B", "\uff22")
        ),
        *((text, 1) for text in ("Answer: B", "The final answer is: **B**", "\\boxed{\\text{B}}")),
        *(
            (text, 1)
            for text in ("B) blue", "B: blue", "**B.** blue", "b. blue", "It's blue, so B.")
        ),
        *((text, 1) for text in ("It is not A, it is B", "B, not A", "A is wrong, it is B")),
        *(
            (text, 2)
            for text in ("dark blue", "dark-blue", "Dark  Blue.", "It is dark blue, not blue")
        ),
        ("blue, not dark blue", 1),
        ("A) is wrong; it is B)", 1),
        ("B. blue. The red one is on the left.", 1),
        ("A. red. Still, the answer is B.", 1),
        ("A. red B. blue", None),
        ("A is correct", 0),
        *((text, None) for text in ("A or B", "A/B", "neither A nor B", "not B", "B. dark blue")),
        *((text, None) for text in ("E", "A bird", "I see nothing", "The answer is A or B.")),
    ],
)
def test_a_letter_selects_an_option_and_the_longest_text_wins(text, place):
    assert chosen(text, SHADES) == place


@pytest.mark.parametrize(
    ("choices", "answers"),
    [
        (("A. red", "B. blue"), ("B", "blue", "It is blue.", "B. blue", "(B) blue")),
        (("(A) red", "(B) blue"), ("B", "(B)", "blue", "(B) blue")),
        (("A) red", "B) blue"), ("b", "blue")),
        (("A: red", "B: blue"), ("B", "blue")),
        (("(a) red", "(b) blue"), ("B", "b", "blue")),
        (("B. red", "A. blue"), ("A", "blue", "A. blue")),
        (("1. red", "2. blue"), ("2", "blue", "Option 2", "2. blue")),
        (("A. Smith", "J. Doe"), ("B", "J. Doe")),
        (("A. 2", "B. 4"), ("B", "4", "4.0")),
        (("A", "B"), ("B", "(B)", "The answer is B.")),
        (("(A)", "(B)"), ("B", "(B)")),
        (("Yes", "No"), ("No.", "No, it is right there.", "false")),
        (("left", "right"), ("It is on the right.", "right")),
        (("A square", "A hexagon"), ("hexagon", "It is a hexagon")),
        (("bar", "caf\u00e9"), ("cafe\u0301", "It is the caf\u00e9.")),
    ],
)
def test_options_with_their_own_labels_are_selected_by_label_or_text(choices, answers):
    assert [chosen(answer, choices) for answer in answers] == [1] * len(answers)


@pytest.mark.parametrize(
    ("choices", "text", "place"),
    [
        (("H", "T", "M"), "The answer is T.", 1),
        (("H", "T", "M"), "Answer: T", 1),
        (("A", "B", "D", "F", "G"), "The answer is D.", 2),
        (("A red car", "A blue car"), "The answer is A blue car", 1),
        (("A square", "A hexagon"), "The answer is A hexagon.", 1),
        (("Point B", "Point A"), "B. Point A", 1),
        (("only A", "either A or B", "only C"), "B. either A or B", 1),
        (("only A", "either A or B", "only C"), "C. only C", 2),
        (("red", "blue"), "The answer is A.", 0),
        (("red", "blue"), "A. blue", None),
    ],
)
def test_a_letter_within_an_options_text_is_not_a_label(choices, text, place):
    assert chosen(text, choices) == place


def test_a_numeric_label_does_not_override_a_text():
    choices = ("0. 2", "1. 4", "2. 8")
    assert [chosen(text, choices) for text in ("2", "8", "2. 8", "4")] == [None, 2, 2, 1]


def test_a_leading_yes_among_other_options_decides():
    choices = ("Yes", "No", "Cannot be determined")
    assert chosen("Yes, there is no problem.", choices) == 0
    assert chosen("It cannot be determined.", choices) == 2


def test_two_options_with_the_same_text_differ_only_by_letter():
    assert chosen("C", ("A", "C", "C", "D")) == 2
    assert [chosen(text, ("red", "red", "blue")) for text in ("red", "B", "not red")] == [
        None,
        1,
        None,
    ]


def test_the_true_option_may_be_a_number_in_another_spelling():
    task = make_task(answer="4.0", answer_kind=AnswerKind.CHOICE, choices=NUMBERS)
    assert [grade(task, text) for text in ("B", "four", "4.5")] == [1.0, 1.0, 0.0]


def test_a_label_is_sufficient_for_options_without_text():
    """The texts may be in the image."""
    assert chosen("A:0", ()) == chosen("A", ()) == 0
