"""Every command tells how it is used, and means what it says."""

from __future__ import annotations

import pytest
from codedance.pipelines.cli.examples import EXAMPLES

from .parser import check, leaves

COMMANDS = dict(leaves())


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_an_example_in_its_help(path):
    assert path in EXAMPLES
    epilog = COMMANDS[path].epilog or ""
    assert f"codedance {path}" in epilog


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_the_parser_takes_every_example(line):
    check(line)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_says_what_it_is(path):
    silent = [
        parameter.name
        for parameter in COMMANDS[path].params
        if not getattr(parameter, "help", None) and not getattr(parameter, "hidden", False)
    ]
    assert silent == []


def test_an_option_goes_by_the_same_names_in_every_command():
    names = {}
    for path, command in COMMANDS.items():
        for parameter in command.params:
            for name in (n for n in parameter.opts if n in SHARED):
                names.setdefault(name, {}).setdefault(tuple(parameter.opts), []).append(path)
    assert {name: kinds for name, kinds in names.items() if len(kinds) > 1} == {}


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
    "line", ["codedance rum", "codedance run --presett smoke", "codedance bench sandbox --rounds x"]
)
def test_the_check_refuses_what_is_wrong(line):
    with pytest.raises(Exception, match=r"rum|presett|valid integer"):
        check(line)
