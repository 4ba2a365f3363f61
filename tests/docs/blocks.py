"""Reads the fenced blocks of a Markdown page and the marks before them.

A mark is a comment on the line before a block:

* ``<!-- not run: REASON -->``: its commands are only parsed, its Python is only compiled.
* ``<!-- exits: 1 -->``: its last command exits with this code.

A Python or YAML block whose first line is a comment with a file name is written to that file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (not run|exits): ([^>]+) -->\s*\Z")
FILE = re.compile(r"# ([\w./-]+\.(?:py|yaml|jsonl))\n")


@dataclass(frozen=True)
class Block:
    """One block: its language, text, position and mark."""

    language: str
    text: str
    line: int
    not_run: str | None = None
    exit_code: int = 0

    @property
    def file(self):
        """Name of the file to write it to; None if it names none."""
        found = FILE.match(self.text)
        return found.group(1) if found else None

    @property
    def commands(self):
        """Commands of a console or bash block, with continued lines joined and without output."""
        joined = self.text.replace("\\\n", " ")
        if self.language == "console":
            return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
        lines = (line.strip() for line in joined.splitlines())
        return [line for line in lines if line and not line.startswith("#")]


def read_blocks(text):
    """Return the blocks of a page, in order."""
    blocks = []
    for found in FENCE.finditer(text):
        indent, language, body = found.groups()
        body = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        mark = MARK.search(text[: found.start()])
        kind, value = mark.groups() if mark else (None, None)
        blocks.append(
            Block(
                language=language,
                text=body,
                line=text[: found.start()].count("\n") + 1,
                not_run=value if kind == "not run" else None,
                exit_code=int(value) if kind == "exits" else 0,
            )
        )
    return blocks
