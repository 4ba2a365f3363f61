"""The number grammar, compared with values calculated by hand."""

from fractions import Fraction

import pytest
from codedance.envs.grading import grade, last_integer, last_number
from codedance.envs.grading.kinds import kind_of
from codedance.envs.grading.numerals import numbers_in
from codedance.envs.types import AnswerKind
from hypothesis import given
from hypothesis import strategies as st

from ..toys import make_task


def named(text):
    return " ".join(str(number) for number in numbers_in(text))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("9 m\u00b2", "9"),
        ("9 m2", "9"),
        ("9 cm^2", "9"),
        ("9 cm^{2}", "9"),
        ("9 cm**2", "9"),
        ("9.8 m/s^2", "49/5"),
        ("5 s^-1", "5"),
        ("5 s\u207b\u00b9", "5"),
        ("3 km/h", "3"),
        ("sheet A4, v1.2, H2O", ""),
        ("60^{\\circ}", "60"),
        ("9 cm \u00b2", "9"),
        ("9 cm ^2", "9"),
        ("9 cm^(2)", "9"),
        ("9 (cm)^2", "9"),
        ("9 cm<sup>2</sup>", "9"),
        ("\u221a3", ""),
        (r"2\sqrt{3}", ""),
        ("3\\pi, or 3\u03c0", ""),
        (r"\frac{\pi}{3}", ""),
        (r"\boxed{$\frac{3 \sqrt{2}}{2}$}", ""),
        ("\u221a9 = 3", "3"),
    ],
)
def test_powers_of_units_and_digits_in_words_are_not_numbers(text, numbers):
    assert named(text) == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("two thousand", "2000"),
        ("12 thousand", "12000"),
        ("1.5 million", "1500000"),
        ("12 hundred", "1200"),
        ("5k", "5000"),
        ("one hundred and five", "105"),
        ("two thousand and one", "2001"),
        ("three million two hundred thousand and ten", "3200010"),
        ("nine hundred ninety-nine thousand nine hundred and ninety-nine", "999999"),
        ("twenty-one hundred", "2100"),
        ("a thousand", "1000"),
        ("two dozen", "24"),
        ("half a dozen", "6"),
        ("half a million", "500000"),
        ("two and three", "2 3"),
        ("one hundred and two hundred", "100 200"),
        ("one, two, three", "1 2 3"),
        ("two and a half million", "2500000"),
        ("2\u00bd million", "2500000"),
        ("2 1/2 million", "2500000"),
        ("two point five million", "2500000"),
        ("4 thousand 500", "4500"),
        ("4 million 500 thousand", "4500000"),
        ("$2 bn, 2.5 mn and 2 lakh", "2000000000 2500000 200000"),
        ("12thousand", "12000"),
        ("nineteen eighty-four", "1984"),
        ("-\u00bd", "-1/2"),
        (r"\frac{-1}{2} and \frac12", "-1/2 1/2"),
        ("x = - 5", "-5"),
        ("minus-five", "-5"),
        ("5 minus 3", "5 3"),
        ("zero point five", "1/2"),
        ("three point one four", "157/50"),
        ("two thirds", "2/3"),
        ("three-quarters", "3/4"),
        ("two and a half", "5/2"),
        ("hundreds of dogs", ""),
        ("a few thousand", ""),
        ("the twenty-first", ""),
        ("no one", ""),
    ],
)
def test_numbers_in_words_are_read_completely(text, numbers):
    assert named(text) == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("minus five", "-5"),
        ("negative 5", "-5"),
        ("minus two hundred and five", "-205"),
        ("\u20135", "-5"),
        ("\u22125", "-5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("minus $5", "-5"),
        ("(-5)", "-5"),
        ("x=-5", "-5"),
        ("**-5**", "-5"),
        ("+5", "5"),
        ("5 minus 3", "5 3"),
        ("$5-$10", "5 10"),
        ("5\u00b0-10\u00b0", "5 10"),
        ("3\u20135", "3 5"),
    ],
)
def test_a_sign_is_read_in_any_spelling_but_a_range_has_none(text, numbers):
    assert named(text) == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,234.5", "2469/2"),
        ("1.234,5", "2469/2"),
        ("1.234.567", "1234567"),
        ("1 234 567,8", "6172839/5"),
        ("1\u00a0234", "1234"),
        ("1\u202f234", "1234"),
        ("1'234", "1234"),
        ("1_000", "1000"),
        ("12,34,567", "1234567"),
        ("0,5", "1/2"),
        ("3,5 cm", "7/2"),
        ("1,2,3", "1 2 3"),
        (".5", "1/2"),
        ("\uff15\uff10%", "50"),
        ("1.2e3", "1200"),
        ("1.2 \u00d7 10^3", "1200"),
        ("1.2x10^3", "1200"),
        ("1.2 \u00b7 10\u00b3", "1200"),
        ("5e-1", "1/2"),
        ("10^3", "1000"),
        ("3/4", "3/4"),
        ("2 1/2", "5/2"),
        ("2\u00bd", "5/2"),
        ("-3/4", "-3/4"),
        ("\\frac{1}{2}", "1/2"),
        ("1{,}000", "1000"),
        ("half", "1/2"),
        ("none", "0"),
    ],
)
def test_digits_are_read_with_their_separators_powers_and_fractions(text, numbers):
    assert named(text) == numbers


@pytest.mark.parametrize(
    "text",
    ["3:30", "3:1", "1/2/2020", "2020-01-02", "1.2.3", "192.168.1.1", "1/0", "1e9999", "9^99999"],
)
def test_times_dates_and_versions_are_not_numbers(text):
    assert last_number(text) is None
    assert last_integer(text) is None


@given(st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=1000))
def test_every_fraction_is_read_as_itself(value):
    assert last_number(f"It is {value}.") == value


@given(st.integers(-(10**6), 10**6), st.sampled_from(["{:,}", "{:_}", "{:.2f}", "{:e}", "{:,.3f}"]))
def test_every_number_that_python_formats_is_read(number, form):
    assert last_number(form.format(number)) == Fraction(form.format(number).replace(",", ""))


@pytest.mark.parametrize(
    ("kind", "truth", "answer", "is_right"),
    [
        ("number", "2", "9 cm^2", False),
        ("integer", "2", "two thousand", False),
        ("integer", "5", "minus five", False),
        ("integer", "-5", "minus five", True),
        ("integer", "30", "3:30", False),
        ("number", "0.5", "1/2", True),
        ("number", "0.5", "\\boxed{\\frac{1}{2}}", True),
        ("number", "2", "\\frac{1}{2}", False),
        ("integer", "1234", "1 234", True),
        ("number", "50", "50 percent", True),
    ],
)
def test_numbers_are_graded_by_their_whole_value(kind, truth, answer, is_right):
    task = make_task(answer=truth, answer_kind=AnswerKind(kind))
    assert grade(task, answer) == float(is_right)


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        *((text, "integer") for text in ("1,234", "\u22125", "-5", "1995", "5.", "twenty-one")),
        *((text, "integer") for text in ("\uff11\uff12", "1 234", "minus five", "0", '"5"')),
        *((text, "number") for text in ("1,234.5", "50%", "50 %", "$1,234.00", "-$5", "12 \u20ac")),
        *((text, "number") for text in ("1e-3", "3/4", "\u00bd", "0.50", ".5", "2.0", "one half")),
        *((text, "boolean") for text in ("Yes.", "yes!", "**No**", "True", "FALSE")),
        *((text, "text") for text in ("2 cats", "5 cm", "1995 edition", "3:30", "1/2/2020", "007")),
        *((text, "text") for text in ("2020-01-02", "3-5", "(3, -4)", "3,4", "4K", "2nd", "~5")),
        *((text, "text") for text in ("right", "none", "A", "no dogs", "1.2.3", "555-1234", "")),
    ],
)
def test_the_readers_determine_the_kind_of_a_reference(reference, kind):
    assert kind_of(reference) == kind
