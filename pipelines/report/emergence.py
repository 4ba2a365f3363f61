"""The emergence report: tables and curves for the HTML page and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ..analysis.emergence import Emergence, Use
from ..charts.chart import line_chart
from ..charts.markdown_table import markdown_table
from ..charts.templates import render
from .gallery import ASSETS

Row = tuple[str, ...]
MOST_ROWS = 12
MOST_LINES = 5
HEAD = ("what", "demonstrations", "first steps", "last steps", "right", "trajectories", "since")


def emergence_section(found: Emergence) -> str:
    """Return the section of the page; empty text if no trajectory ran code."""
    if not found.trajectories:
        return ""
    techniques = dict(list(found.techniques.items())[:MOST_LINES])
    chart = line_chart("Techniques, share of the trajectories with code", techniques, smooth=5)
    return render(
        ASSETS, "emergence.html.j2", summary=_summary(found), chart=chart, tables=_tables(found)
    )


def emergence_markdown(found: Emergence) -> str:
    """Return the report as Markdown."""
    lines = ["# Emergent code", "", _summary(found), ""]
    for title, head, rows in _tables(found):
        lines += [f"## {title}", "", *markdown_table(head, rows), ""]
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


def _tables(found: Emergence) -> list[tuple[str, Row, list[Row]]]:
    """Return title, header and rows of each table that has rows."""
    tables = [
        ("Novel calls", HEAD, _rows([use for use in found.calls if use.is_novel])),
        ("Unseen compositions", HEAD, _rows([use for use in found.compositions if use.is_novel])),
        ("Calls", HEAD, _rows(found.calls)),
        ("Compositions", HEAD, _rows(found.compositions)),
        (_TRANSFER, ("shown for", *found.families), _matrix(found)),
    ]
    return [table for table in tables if table[2]]


def _rows(uses: Sequence[Use]) -> list[Row]:
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


def _matrix(found: Emergence) -> list[Row]:
    """Return a row per family; none without any transfer."""
    if not found.transfer:
        return []
    return [
        (
            home,
            *(
                "" if home == family else f"{found.transfer.get((home, family), 0.0):.1%}"
                for family in found.families
            ),
        )
        for home in found.families
    ]
