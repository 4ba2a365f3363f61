"""Functions that read text of a model or a user take linear time for any text.

Python lines are counted at two lengths. Work inside a pattern cannot be counted, so patterns are
tested on texts so long that one with quadratic time would run for minutes.
"""

import sys

import pytest
from codedance.envs.menu.view import encode_words
from codedance.envs.parsing import parse_action, requests_in, thought_in
from codedance.envs.suites.nano.suite import family_of
from codedance.envs.text.unicode_text import escape_surrogates
from codedance.pipelines.cli.episodes.asking import match_family
from codedance.pipelines.viewer.tools import tools_used
from codedance.policies.analysis.code_usage import usage_of
from codedance.policies.inference.chat_completion import Completion
from codedance.policies.inference.openai_server.stop_texts import finish_text
from codedance.policies.scripted.nlvr_program import judge
from codedance.policies.second_look import plain_question
from codedance.sandbox import Execution, Outcome
from codedance.sandbox.host.frames import encode_block
from codedance.sandbox.plain_text import escape_lines
from codedance.sandbox.types import output_digest
from codedance.sandbox.worker.descriptors import opened_by_number
from codedance.sandbox.worker.places import Places, installed_folders

FENCE = "`" * 3
LONG = 200_000
CODE = 20_000  # Python's own parser takes seconds for more
PHRASES = {"f": ["{a}{b}{c} is {d}-{e}?", "How many {colour} dots are there?"]}
STATEMENT = "Is this statement true or false? Statement: "

PIECES = [
    *("<think>", "</think>", "x</think>", "<answer>", "<tool_response>", "<code>", "</code>"),
    *(FENCE, f"{FENCE}\n", f"a {FENCE}\n", f"<code>{FENCE}\n", f"<code>{FENCE}\n</code>"),
    *(f"{FENCE}python\n", f"{FENCE}python\n</think>\n", "~~~ x\n</think>\n", f"- {FENCE}\n  x\n"),
    *(f"{FENCE}`python\nx{FENCE}`\n", f"a {FENCE}`\n{FENCE}\n", f"a {FENCE}\n     {FENCE}\n"),
]
ENDS = [
    "",
    f"\n{FENCE}python\nx\n{FENCE}",
    f"{FENCE}\n</code>",
    "\n~~~\n</think><answer>5</answer>",
]


def lines_run(text: str) -> int:
    """Count the lines of Python that are executed to read a text."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse_action(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("piece", PIECES)
def test_twice_the_text_takes_at_most_twice_the_work(piece, end):
    once = lines_run(piece * 200 + end)
    twice = lines_run(piece * 400 + end)
    assert twice <= 2.2 * once + 100


def see(text):
    parse_action(text)
    requests_in(text)
    thought_in(text)


FOLDERS = installed_folders()
PLACES = Places("/tmp/codedance-test/1")


def handle(text):
    """Whatever else the host does with a reply, the code in it and what the code printed."""
    finish_text(Completion(text), ("</answer>", "</code>"))
    plain_question(f"How many?\nA first look gave: {text}")
    escape_lines(text)
    escape_surrogates(text)
    usage_of([text[:CODE]])
    tools_used(text[:CODE])
    opened_by_number(text)
    output_digest(Execution(Outcome.OK, stdout=text, stderr=f"{FOLDERS[0]}/{text}"), FOLDERS)
    PLACES.without_folders(f'  File "{FOLDERS[0]}/{text}')
    encode_block(1, text, 1.0, 1.0)


READERS = {
    "the host": handle,
    "parse_action": see,
    "the box": lambda text: parse_action(f"<box>{text}</box>", interface="box"),
    "the nano suite": family_of,
    "ask": lambda text: match_family(text, PHRASES),
    "words": lambda text: encode_words(text, 64),
    "a statement": lambda text: judge(STATEMENT + text, "[]"),
    "what code printed": lambda text: Execution(Outcome.OK, stdout=text).digest,
}


@pytest.mark.parametrize(
    "piece",
    [" ", "\t", "`", "~", "<", "/", "-", ">", "1", "a", "\n ", "- ", "1. ", "/a", "/codedance-"],
)
@pytest.mark.parametrize("reader", READERS)
def test_no_pattern_takes_quadratic_time(reader, piece):
    run = piece * (LONG // len(piece))
    READERS[reader](run)
    READERS[reader](f"{FENCE}{run}")
    READERS[reader](f"/x at 0x{run}/codedance-a")


@pytest.mark.parametrize(
    "lead", ["there are 1 ", "box with ", "box with 1 ", "how many ", f"<code>{FENCE}python "]
)
@pytest.mark.parametrize("reader", READERS)
def test_no_pattern_is_slow_after_its_own_keywords(reader, lead):
    READERS[reader](lead + " " * LONG + "x")
    READERS[reader](lead + "1" * LONG + "x")
