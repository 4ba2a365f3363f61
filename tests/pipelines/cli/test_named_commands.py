"""Every command named in a message exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import codedance.envs
import codedance.pipelines
import codedance.policies
import codedance.sandbox
import pytest
from docs.parser import check, command_tree

ROOMS = (codedance.envs, codedance.pipelines, codedance.policies, codedance.sandbox)
QUOTED = re.compile(r"`(codedance [^`]*)`")
BARE = re.compile(r"(?<![`./\w-])codedance ([a-z-]+(?: [\w./-]+)*)")
HOLE = "HOLE"
"""Placeholder for values inserted into a message: a run, a stage, a number."""
PLACEHOLDERS = {"FOLDER": "folder", "RUN": "latest", "MODEL": "nano", "POLICY": "nano"}


def texts(path: Path) -> Iterator[str]:
    """Yield every string of a module except docstrings, with `HOLE` for values of f-strings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def named(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """Return the location of each named command, and the command."""
    found = set()
    for room in ROOMS:
        folder = Path(str(room.__path__[0]))
        for path in folder.rglob("*.py"):
            for text in texts(path):
                commands = (" ".join(one.split()) for one in pattern.findall(text))
                found |= {(str(path.relative_to(folder.parent)), one) for one in commands}
    return sorted(found)


def problem_of(command: str) -> str:
    """Return the parser's error for a named command, with any values in its placeholders."""
    words = [PLACEHOLDERS.get(word, word) for word in command.replace("…", "").split()]
    problem = ""
    for value in ("latest", "1", "sft"):
        try:
            check(" ".join(words).replace(f"--to {HOLE}", "--to wandb").replace(HOLE, value))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - any error of the parser
            problem = str(error) or type(error).__name__
        else:
            return ""
    return problem


def unknown_words(words: list[str]) -> list[str]:
    """Return the words of a command in a sentence that are not commands or options."""
    command, path = command_tree(), list[str]()
    while words and hasattr(command, "commands"):
        if words[0] not in command.commands:
            return [*path, words[0]]
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return [word for word in words if word.startswith("--") and word not in options]


QUOTED_COMMANDS = named(QUOTED)
BARE_COMMANDS = [
    (path, words) for path, words in named(BARE) if words.split()[0] in command_tree().commands
]


def test_some_messages_name_commands():
    assert len(QUOTED_COMMANDS) >= 10
    assert len(BARE_COMMANDS) >= 5


@pytest.mark.parametrize(("path", "command"), QUOTED_COMMANDS)
def test_the_parser_accepts_every_command_quoted_in_a_message(path, command):
    assert problem_of(command) == ""


@pytest.mark.parametrize(("path", "words"), BARE_COMMANDS)
def test_every_command_within_a_sentence_exists_with_its_options(path, words):
    assert unknown_words(words.split()) == []


def test_the_check_rejects_unknown_commands():
    assert "has no command 'shew'" in problem_of("codedance store shew 1")
    assert problem_of("codedance store list --limit -1")
    assert unknown_words(["store", "shew"]) == ["store", "shew"]
    assert unknown_words(["sandbox", "build", "--pyton", "3"]) == ["--pyton"]
