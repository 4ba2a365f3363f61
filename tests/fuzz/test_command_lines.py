"""Any command line: exit code 0, 1, 2 or 3 and a message, never a traceback.

Commands that would start long work get an invalid argument, so the exit code shows whether one of
them accepts it.
"""

from __future__ import annotations

import sys

import pytest
import typer
from codedance.pipelines.cli.app import app, run_app
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from .settings import examples
from .test_replies import replies

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LASTING = {"ui", "doctor", "serve model", "flows serve", "flows deploy", "mlflow sync"}
"""Commands that start or query servers: tested only with invalid arguments."""
POISON = (
    *("--no-such-option", "--preset=nosuch", "--suite=no/such.jsonl", "--from=nosuch-1-2"),
    *("--sandbox=nosuch", "--seed=x", "--limit=0", "--limit=-3", "--workers=0", "--policy=nosuch"),
)


def commands(group=None, path=()):
    """Return every command as a list of words."""
    group = group or typer.main.get_command(app)
    found = {}
    for name, one in group.commands.items():
        is_group = hasattr(one, "commands")
        found |= commands(one, (*path, name)) if is_group else {" ".join((*path, name)): one}
    return found


COMMANDS = commands()
values = st.one_of(
    st.sampled_from(
        ["", " ", "-", "--", "0", "-1", "1e9", "nan", "x", ".", "/", "/dev/null", "a.png"]
    ),
    st.sampled_from(
        ["no.jsonl", "mine.jsonl", "latest", "\ud83d", "é", "nano", "smoke", "x" * 3000]
    ),
    replies.map(lambda text: text.replace("\0", "")),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("typed")
    Image.new("RGB", (48, 48), "white").save(made / "a.png")
    (made / "mine.jsonl").write_text('{"image": "a.png", "question": "?", "answer": 1, "x": }\n')
    return made


def typed(words, folder, monkeypatch, capsys):
    """Run a command line; return its exit code and standard error."""
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CODEDANCE_DIR", str(folder / "home"))
        patch.setattr("sys.argv", ["codedance", *words])
        sys.stderr.reconfigure(errors="backslashreplace")  # as in every process
        with pytest.raises(SystemExit) as ended:
            run_app()
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err, (words, captured.err[-3000:])
    return ended.value.code, captured.err


@given(data=st.data())
@examples(1200)
def test_any_options_yield_an_exit_code_and_a_message(folder, monkeypatch, capsys, data):
    name = data.draw(st.sampled_from(sorted(COMMANDS)))
    options = [
        option
        for one in COMMANDS[name].params
        for option in one.opts
        if option.startswith("--") and option != "--help"
    ]
    words = name.split()
    for _ in range(data.draw(st.integers(0, 3))):
        option = data.draw(st.sampled_from([*options, "--json", "-h", "--", "extra"]))
        words += [option, data.draw(values)] if data.draw(st.booleans()) else [option]
    takes = [poison for poison in POISON if poison.split("=")[0] in options] or [POISON[0]]
    poison = POISON[0] if name in LASTING else data.draw(st.sampled_from([POISON[0], *takes]))
    at = len(name.split())
    code, said = typed([*words[:at], poison, *words[at:]], folder, monkeypatch, capsys)
    assert code in (0, 1, 2, 3), words
    if code != 0:
        assert said.strip(), words


READING = ("runs", "store list", "store show", "store verify", "report", "rescore", "view", "ask")


@given(st.sampled_from(READING), st.lists(values, max_size=2))
@examples(150)
def test_any_arguments_of_a_reading_command_yield_an_exit_code_and_a_message(
    folder, monkeypatch, capsys, name, arguments
):
    code, _ = typed([*name.split(), *arguments], folder, monkeypatch, capsys)
    assert code in (0, 1, 2, 3)
