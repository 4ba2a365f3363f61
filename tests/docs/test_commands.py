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


def test_one_option_means_one_thing_over_all_commands():
    meanings = {}
    for path, command in COMMANDS.items():
        for parameter in command.params:
            for name in (n for n in parameter.opts if n in SHARED):
                meanings.setdefault(name, {}).setdefault(str(parameter.type), []).append(path)
    assert {name: list(kinds) for name, kinds in meanings.items() if len(kinds) > 1} == {}


SHARED = ("--seed", "--suite", "--policy", "--preset", "--json", "--limit", "--sandbox", "--from")


@pytest.mark.parametrize(
    "line", ["codedance rum", "codedance run --presett smoke", "codedance bench sandbox --rounds x"]
)
def test_the_check_refuses_what_is_wrong(line):
    with pytest.raises(Exception, match=r"rum|presett|rounds"):
        check(line)
