"""The content of a fence, without the quote marks and indent of its lines."""

from __future__ import annotations

import re

_INDENT = re.compile(r"[ \t]*")
_QUOTE = re.compile(r"[ \t]*>[ \t]?")
_DEEPEST = 4  # quotations within quotations


def without_quotes(body: str, prefix: str) -> str:
    """Return the content of a fence without the quote marks of a surrounding block quote.

    Args:
        body: Content of the fence.
        prefix: Text before the fence in its line: indent, list markers and quote marks.
    """
    depth = min(prefix.count(">"), _DEEPEST)
    if not depth or _QUOTE.match(body) is None:
        return body
    lines = body.split("\n")
    for _ in range(depth):
        marks = [_QUOTE.match(line) for line in lines]
        lines = [
            line if mark is None else line[mark.end() :]
            for line, mark in zip(lines, marks, strict=True)
        ]
    return "\n".join(lines)


def without_indent(body: str, column: int) -> str:
    """Return the content without the fence's indent, at most that of its first line of code.

    Code that is indented less than its fence keeps its own indents.
    """
    if not column:
        return body
    lines = body.split("\n")
    written = [line for line in lines if line.strip()]
    code = next((line for line in written if not line.lstrip().startswith("#")), None)
    first = code or next(iter(written), "")
    width = min(column, len(_indent(first).expandtabs(4)))
    return "\n".join(_cut_indent(line, width) for line in lines) if width else body


def _cut_indent(line: str, width: int) -> str:
    indent = _indent(line)
    column = taken = 0
    while taken < len(indent) and column < width:
        column += 4 - column % 4 if indent[taken] == "\t" else 1
        taken += 1
    return " " * (column - width) + line[taken:]


def _indent(line: str) -> str:
    found = _INDENT.match(line)
    return found[0] if found is not None else ""
