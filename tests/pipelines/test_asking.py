"""What a model was taught is told plainly."""

from __future__ import annotations

import pytest
from codedance.pipelines.asking import match_family

FAMILIES = {
    "count": ["How many {colour} dots are there?", "Count the {colour} dots."],
    "digit": ["Which digit is in the frame?"],
}


@pytest.mark.parametrize(
    ("question", "family"),
    [
        ("How many red dots are there?", "count"),
        ("how many  BLUE dots are there", "count"),
        ("Count the dark-green dots.", "count"),
        ("Which digit is in the frame?", "digit"),
        ("How many red objects are there?", None),
        ("How many red dots are there? Also sing.", None),
        ("", None),
        ("How many .* dots are there?", None),
    ],
)
def test_question_is_matched_to_its_family(question, family):
    assert match_family(question, FAMILIES) == family
