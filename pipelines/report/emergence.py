"""The emergence report: tables and curves for the HTML page and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..analysis.emergence import Emergence, Use
from ..charts.chart import line_chart
from ..charts.markdown_table import markdown_table

MOST_ROWS = 12
MOST_LINES = 5
HEAD = ("what", "demonstrations", "first steps", "last steps", "right", "trajectories", "since")


def emergence_section(found: Emergence) -> str:
    """Return the section of the page; empty text if no trajectory ran code."""
    if not found.trajectories:
        return ""
    idioms = dict(list(found.idioms.items())[:MOST_LINES])
    charts = line_chart("Techniques, share of the trajectories with code", idioms, smooth=5)
    tables = "".join(
        f"<h3>{escape(title)}</h3>{_table(HEAD, rows)}" for title, rows in _tables(found) if rows
    )
    matrix = _matrix(found)
    transfer = f"<h3>{escape(_TRANSFER)}</h3>{_table(matrix[0], matrix[1:])}" if matrix else ""
    return (
        f"<h2>Emergent code</h2><p>{escape(_summary(found))}</p>"
        f"<div class='charts'>{charts}</div>{tables}{transfer}"
    )


def emergence_markdown(found: Emergence) -> str:
    """Return the report as Markdown."""
    lines = ["# Emergent code", "", _summary(found), ""]
    for title, rows in _tables(found):
        lines += [f"## {title}", "", *markdown_table(HEAD, rows), ""] if rows else []
    matrix = _matrix(found)
    if matrix:
        lines += [f"## {_TRANSFER}", "", *markdown_table(matrix[0], matrix[1:]), ""]
    return "\n".join(lines)


_TRANSFER = "Transfer: share of a column's trajectories with a call demonstrated for the row only"


def _summary(found: Emergence) -> str:
    novel = sum(use.is_novel for use in found.calls)
    unseen = sum(use.is_novel for use in found.compositions)
    return (
        f"{found.trajectories} trajectories ran code while training, {found.demonstrations} "
        f"demonstrations did. {novel} of {len(found.calls)} calls and {unseen} of "
        f"{len(found.compositions)} compositions were in no demonstration."
    )


def _tables(found: Emergence) -> list[tuple[str, list[tuple[str, ...]]]]:
    return [
        ("Novel calls", _rows([use for use in found.calls if use.is_novel])),
        ("Unseen compositions", _rows([use for use in found.compositions if use.is_novel])),
        ("Calls", _rows(found.calls)),
        ("Compositions", _rows(found.compositions)),
    ]


def _rows(uses: Sequence[Use]) -> list[tuple[str, ...]]:
    return [
        (
            use.name,
            f"{use.demonstrations:.1%}",
            f"{use.first:.1%}",
            f"{use.last:.1%}",
            f"{use.right:.0%}",
            str(use.count),
            f"step {use.first_step}",
        )
        for use in uses[:MOST_ROWS]
    ]


def _matrix(found: Emergence) -> list[tuple[str, ...]]:
    """Return header and rows; empty without any transfer."""
    if not found.transfer:
        return []
    rows = [
        (
            home,
            *(
                "" if home == family else f"{found.transfer.get((home, family), 0.0):.1%}"
                for family in found.families
            ),
        )
        for home in found.families
    ]
    return [("shown for", *found.families), *rows]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead>{body}</table></div>'
