"""Every command has help with an example, and every example is valid."""

from __future__ import annotations

import re

import pytest
from codedance.pipelines.cli.app import app
from codedance.pipelines.cli.examples import EXAMPLES
from typer.testing import CliRunner

from .parser import check, command_tree, leaves

COMMANDS = dict(leaves())


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_an_example_in_its_help(path):
    assert path in EXAMPLES
    epilog = COMMANDS[path].epilog or ""
    assert f"codedance {path}" in epilog


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_the_parser_accepts_every_example(line):
    check(line)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_has_a_description(path):
    silent = [
        parameter.name
        for parameter in COMMANDS[path].params
        if not getattr(parameter, "help", None) and not getattr(parameter, "hidden", False)
    ]
    assert silent == []


def test_an_option_has_the_same_names_in_every_command():
    names = {}
    for path, command in COMMANDS.items():
        for parameter in command.params:
            for name in (n for n in parameter.opts if n in SHARED):
                names.setdefault(name, {}).setdefault(tuple(parameter.opts), []).append(path)
    assert {name: kinds for name, kinds in names.items() if len(kinds) > 1} == {}


def help_pages():
    """Yield the help of every command and group, in 80 columns."""

    def groups(command, path=()):
        if hasattr(command, "commands"):
            yield path
            for name, member in command.commands.items():
                yield from groups(member, (*path, name))

    for path in (*groups(command_tree()), *(tuple(path.split()) for path in COMMANDS)):
        yield CliRunner(env={"COLUMNS": "80"}).invoke(app, [*path, "--help"]).output


def test_help_in_80_columns_shows_flags_without_a_value_and_cuts_no_word():
    pages = list(help_pages())
    assert len(pages) == len(COMMANDS) + 6
    for page in pages:
        assert "Usage: codedance" in page
        assert "<bool>" not in page
        assert " range>" not in page
        assert max(len(line) for line in page.splitlines()) <= 80
        cut = [line for line in page.splitlines() if re.search(r"[^\s,]…\s*│$", line)]
        assert cut == []


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_no_example_is_broken_over_two_lines(line):
    assert len(line) <= 78


SHARED = (
    "--seed",
    "--suite",
    "--tasks",
    "--preset",
    "--json",
    "--limit",
    "--sandbox",
    "--from",
    "--refresh",
    "--fresh",
    "--workers",
)


@pytest.mark.parametrize(
    "line",
    ["codedance rum", "codedance run --presett smoke", "python -m benchmarks.sandbox --rounds x"],
)
def test_the_check_rejects_invalid_commands(line):
    with pytest.raises(Exception, match=r"rum|presett|valid integer"):
        check(line)
