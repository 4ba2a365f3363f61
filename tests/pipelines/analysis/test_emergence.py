"""Techniques found in training are distinguished from demonstrated ones, on made-up programs."""

from __future__ import annotations

import pytest
from codedance.pipelines.analysis.emergence import find_emergence, training_emergence
from codedance.pipelines.cli.analysis.emergence import emergence_lines
from codedance.pipelines.report.emergence import emergence_markdown, emergence_section
from codedance.pipelines.runs.runner import find_input
from codedance.pipelines.store.programs import Program

from ..tiny_runs import first_run

CROP = "c = input_image.crop((0, 0, 9, 9))"
COUNT = "import cv2\nprint(cv2.connectedComponents(m))"
EDGES = "import cv2\ncv2.Canny(g, 1, 2)"


def program(*blocks, family="count", step=0, is_right=True):
    return Program(0, "train", step, family, is_right, blocks)


SHOWN = [
    program(COUNT),
    program(COUNT),
    program(CROP, family="digit"),
    program(family="digit"),  # answered directly
]
MADE = [
    program(COUNT, step=1),
    program(CROP, COUNT, step=1),
    program(CROP, COUNT, step=2),
    program(CROP, EDGES, family="digit", step=2, is_right=False),
]


@pytest.fixture
def found():
    return find_emergence(SHOWN, MADE)


def test_shares_by_hand(found):
    assert (found.demonstrations, found.trajectories) == (3, 4)
    uses = {use.name: use for use in found.calls}
    crop = uses["Image.crop"]
    assert (crop.demonstrations, crop.first, crop.last) == (pytest.approx(1 / 3), 0.5, 1.0)
    assert (crop.count, crop.first_step, crop.right) == (3, 1, pytest.approx(2 / 3))
    assert {use.name for use in found.calls if use.is_novel} == {"cv2.Canny"}
    assert uses["cv2.Canny"].right == 0.0


def test_compositions_that_no_demonstration_showed_are_named(found):
    unseen = {use.name: use.last for use in found.compositions if use.is_novel}
    assert unseen == {"crop, then count": 0.5, "crop, then edges": 0.5}


def test_techniques_are_counted_by_step(found):
    assert found.techniques["crop"] == [(1.0, 0.5), (2.0, 1.0)]
    assert found.techniques["edges"] == [(1.0, 0.0), (2.0, 0.5)]


def test_calls_shown_for_another_family_are_transfer(found):
    # Two of the three counting trajectories crop, which was shown for digits only.
    assert found.transfer == {("digit", "count"): pytest.approx(2 / 3)}


def test_report_and_terminal_show_the_same(found):
    page, text = emergence_section(found), emergence_markdown(found)
    for name in ("cv2.Canny", "crop, then count", "66.7%"):
        assert name in page
        assert name in text
    lines = emergence_lines(found, 10)
    assert any(line.startswith("crop, then count") for line in lines)
    assert any("digit -> count: 66.7%" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_training_without_code_is_reported():
    nothing = find_emergence(SHOWN, [])
    assert emergence_section(nothing) == ""
    assert emergence_lines(nothing, 3) == ["no trajectory of this training ran code"]


def test_a_stored_run_is_read_with_its_own_demonstrations(finished):
    run = first_run(finished)
    grpo = find_input(finished, run, "grpo")
    found = training_emergence(finished.store, grpo)
    assert found.demonstrations > 0
    assert sum(bool(one.blocks) for one in finished.store.programs(grpo.id)) == found.trajectories
