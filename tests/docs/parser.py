"""Checks a command with the command line's own parser, without running it."""

from __future__ import annotations

import shlex
from importlib import import_module

import typer
from codedance.pipelines.cli.app import app, single_app

PROGRAMS = ("python -m benchmarks.", "python -m experiments.")
"""Beginning of a line that runs a module of the repository."""
OURS = ("codedance ", *PROGRAMS)


def command_tree():
    """Return the root of the command line, with its groups and commands."""
    return typer.main.get_command(app)


def leaves(command=None, path=()):
    """Yield every command that is not a group, with its path."""
    command = command_tree() if command is None else command
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, member in command.commands.items():
        yield from leaves(member, (*path, name))


def check(line):
    """Raise the error that the user would see for an invalid command line."""
    program, *words = shlex.split(line, comments=True)
    if line.startswith(PROGRAMS):
        _check_module(*words[1:])
        return
    assert program == "codedance", line
    command = command_tree()
    path = [program]
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-"):
            assert words in (["--help"], ["-h"]), line
            return
        name = words.pop(0)
        assert name in command.commands, f"{line}: {' '.join(path)} has no command {name!r}"
        command = command.commands[name]
        path.append(name)
    if "--help" not in words and "-h" not in words:
        command.make_context(" ".join(path), words)


def _check_module(name, *words):
    """Check a command of a module with one command, which has the module's own name."""
    application = single_app(getattr(import_module(name), name.rpartition(".")[2]))
    if "--help" not in words and "-h" not in words:
        typer.main.get_command(application).make_context(name, list(words))
