"""A table in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    r"""Return the lines of a table; a bar in a cell is escaped.

    >>> markdown_table(["name", "value"], [["a|b", 1]])
    ['| name | value |', '| --- | --- |', '| a\\|b | 1 |']
    """
    return [_row(head), _row(["---"] * len(head)), *(_row(row) for row in rows)]


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
