"""Images are inline in terminals that support it, and model text cannot control the terminal."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest
import typer
from codedance.envs.types import Action, Turn
from codedance.pipelines.cli import output
from codedance.pipelines.cli.app import run_app
from codedance.pipelines.cli.episodes.terminal import (
    picture_protocol,
    picture_sequence,
    show_turn,
)
from codedance.sandbox import Execution, Outcome
from sandbox.hostile_text import HOSTILE, controls_in

from ..makers import make_picture


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
    ],
)
def test_protocol_is_detected_from_the_environment(environment, protocol):
    assert picture_protocol(environment) == protocol


def test_kitty_gets_the_image_in_chunks():
    text = picture_sequence(make_picture(0, (80, 80)), "kitty")
    chunks = text.split("\x1b\\")[:-1]
    assert len(chunks) > 1
    assert chunks[0].startswith("\x1b_Ga=T,f=100,m=1;")
    assert [c.partition("m=")[2][0] for c in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    data = "".join(chunk.partition(";")[2] for chunk in chunks)
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_iterm_gets_the_image_in_one_piece():
    text = picture_sequence(make_picture(), "iterm")
    assert text.startswith("\x1b]1337;File=inline=1;size=")
    assert text.endswith("\a")


def test_turn_is_shown_with_thought_code_and_output(tmp_path, capsys):
    picture = make_picture()
    execution = Execution(Outcome.ERROR, "5\n", "", "NameError: x, line 1\x1b[2J", (picture,))
    text = "<think>I look \x07closer.</think><code>…</code>"
    show_turn(1, Turn(text, Action("code", "print(5)\nx"), execution), tmp_path)
    shown = capsys.readouterr().out
    assert "I look \\x07closer." in shown
    assert "  │ print(5)\n  │ x\n" in shown
    assert "  → 5\n" in shown
    assert "  → NameError: x, line 1\\x1b[2J" in shown
    assert (tmp_path / "turn-1-1.png").is_file()
    assert "\x1b" not in shown


def test_malformed_turn_is_shown_with_its_reason(tmp_path, capsys):
    show_turn(2, Turn("hm", Action("malformed", "neither code nor answer")), tmp_path)
    shown = capsys.readouterr().out
    assert "(malformed: neither code nor answer)" in shown
    assert "  ? hm" in shown


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_in_a_turn_can_control_the_terminal(text, capsys):
    execution = Execution(Outcome.ERROR, text, text, text)
    for kind in ("code", "answer", "malformed"):
        show_turn(1, Turn(f"<think>{text}</think>{text}", Action(kind, text), execution), None)
    assert controls_in(capsys.readouterr().out) == []


def test_names_in_a_table_are_neither_markup_nor_control_characters(capsys):
    names = [f"family {name}" for name in HOSTILE]
    output._print_rich("title [/]", ["tasks", "right [link=x]"], [[name, "1"] for name in names])
    shown = capsys.readouterr().out
    assert controls_in(shown) == []
    assert "[/]" in shown
    assert "right [link=x]" in shown


def test_a_log_record_and_a_warning_cannot_control_the_terminal():
    """In a process of its own: pytest takes records and warnings for itself."""
    code = f"""
import logging, sys, warnings
import typer
from codedance.pipelines.cli.app import run_app

application = typer.Typer()

@application.command()
def fail():
    for text in {HOSTILE!r}:
        text = text.encode('utf-8', 'replace').decode()
        logging.getLogger('codedance.policies').warning('lost: %s', text)
        warnings.warn(text, stacklevel=1)
        try: raise ValueError(text)
        except ValueError: logging.getLogger('other').exception('failed')

sys.argv = ['fail']
run_app(application)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "lost: \\x1b]52;c;" in done.stderr
    assert "ValueError: \\x1b]52;c;" in done.stderr
    assert "UserWarning: \\x1b]52;c;" in done.stderr
    assert controls_in(done.stderr) == []


@pytest.mark.parametrize("kind", [ValueError, ZeroDivisionError])
def test_an_error_that_quotes_a_model_cannot_control_the_terminal(kind, capsys, monkeypatch):
    application = typer.Typer()

    @application.command()
    def fail():
        raise kind("\n".join(HOSTILE))

    monkeypatch.setattr(sys, "argv", ["fail"])
    with pytest.raises(SystemExit):
        run_app(application)
    shown = capsys.readouterr().err
    assert "\\x1b]52;c;" in shown
    assert controls_in(shown) == []
