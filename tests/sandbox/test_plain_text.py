import sys

import pytest
from codedance.sandbox.plain_text import escape_controls, escape_lines

from .hostile_text import CONTROLS, HOSTILE, controls_in


@pytest.mark.parametrize("text", HOSTILE)
def test_control_characters_become_visible(text):
    shown = escape_controls(text)
    assert controls_in(shown) == []
    shown.encode()
    assert escape_controls(shown) == shown
    assert "\n" not in escape_lines(f"{text}\nforged")


def test_every_character_is_shown_or_escaped():
    for number in range(sys.maxunicode + 1):
        shown = escape_controls(chr(number))
        assert shown == chr(number) or (shown.isascii() and shown.startswith("\\"))
    assert controls_in(escape_controls("".join(CONTROLS))) == []


@pytest.mark.parametrize(
    "text",
    [
        "é 数 🙂 <b>",
        "a\tb\nc",
        "12\u00a0kg",
        "\u0645\u06cc\u200c\u062e\u0648\u0627",
        "👩\u200d🔬",
        "全\u3000角",
        "[/]",
    ],
)
def test_plain_text_of_any_language_is_unchanged(text):
    assert escape_controls(text) == text


def test_escapes_are_those_of_python():
    assert escape_controls("a\x1b[2J\x07\x9b31m\r\tb\n") == "a\\x1b[2J\\x07\\x9b31m\\r\tb\n"
    assert escape_controls("\u202e\ud800\U000e0041") == "\\u202e\\ud800\\U000e0041"
