"""Messages of a stage are on its Prefect page, and a figure is a separate image."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ElementTree

import pytest
from codedance.pipelines.charts.chart import line_picture

pytestmark = pytest.mark.filterwarnings("ignore")  # many warnings of Prefect only


class Lines:
    """Progress that records its messages."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


class Post:
    """Records calls to Prefect without making them."""

    def __init__(self):
        self.calls = []

    def send(self, call):
        self.calls.append(call.cr_code.co_name)
        call.close()
        return self.calls


class Records(logging.Handler):
    """Records log messages."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def emit(self, record):
        self.kept.append((record.levelname, record.getMessage()))


@pytest.fixture
def said():
    logger, records = logging.getLogger("page"), Records()
    logger.setLevel(logging.INFO)
    logger.addHandler(records)
    yield records.kept
    logger.removeHandler(records)


def pages(outer):
    from codedance.pipelines.flows.page import PageProgress

    post = Post()
    return PageProgress(logging.getLogger("page"), outer, post), post


def test_lines_are_log_records_and_are_printed(said):
    terminal = Lines()
    page, _ = pages(terminal)
    page.say("sft: resuming sft-1")
    page.say("ALARM at step 3: entropy fell")
    assert said == [
        ("INFO", "sft: resuming sft-1"),
        ("WARNING", "ALARM at step 3: entropy fell"),
    ]
    assert terminal.said == ["sft: resuming sft-1", "ALARM at step 3: entropy fell"]


def test_a_bar_is_one_artifact_for_any_number_of_enclosing_flows(said):
    outer, outer_post = pages(None)
    page, post = pages(outer)
    with page.bar("sft", 3) as bar:
        for step in (1, 2, 3):
            bar.reach(step, note=f"loss {step}")
    assert post.calls == ["acreate_progress_artifact", "_update"]  # the first step and the last
    assert outer_post.calls == []
    lines = [text for _, text in said]
    assert len(lines) == 2  # one per page
    assert all(line.startswith("sft") and line.endswith("loss 3") for line in lines)


def test_a_figure_is_an_image_without_the_rest_of_the_page():
    text = line_picture("Reward & more", {"<b>": [(1, 0.1), (2, 0.4)], "c": [(1, 0.2), (2, 0.3)]})
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = "".join(root.itertext())
    assert "Reward & more" in words
    assert "<b>" in words
    assert len(root.findall(".//{*}polyline")) == 2
    assert line_picture("empty", {"a": []}) == ""
