"""The report as one self-contained HTML file without scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from ...envs.types import Difficulty
from ..analysis.results import WHOLE, Summary, difference_lines, lost_lines, table_head, table_rows
from ..charts.chart import Series, line_chart
from ..charts.style import STYLE
from ..config.registry import find_stage, known_names
from ..runs.progress import format_seconds
from ..store.episodes import Episode
from ..store.lineage import StageRun

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
SMOOTH = 5


def render_page(
    run: StageRun,
    summary: Summary,
    stages: Sequence[StageRun],
    *,
    charts: str,
    gallery: str,
    emergence: str = "",
) -> str:
    """Render the page."""
    facts = f"seed {run.seed}, suite {run.parameters.get('suite', '')}, commit {run.git_commit}"
    differences = "".join(f"<p>{escape(line)}</p>" for line in difference_lines(summary))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>CodeDance: {escape(run.id)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(run.id)}</h1><p class='sub'>{escape(facts)}</p>{_tiles(summary)}"
        f"<h2>Held-out results</h2>{differences}{_tables(summary)}{_footnote(summary)}"
        f"<h2>Training</h2><div class='charts'>{charts}</div>{emergence}"
        f"<h2>Episodes</h2>{gallery}"
        f"<h2>How it was made</h2>{_lineage(stages)}</main></body></html>"
    )


def render_charts(figures: Mapping[str, Mapping[str, Series]], episodes: Sequence[Episode]) -> str:
    """Draw the curves that the stages declare, and the tool calls by difficulty during GRPO.

    Args:
        figures: Metrics of each stage, by stage.
        episodes: Episodes of GRPO.
    """
    charts = [
        line_chart(title, {name: series.get(name, ()) for name in names}, smooth=SMOOTH)
        for stage, series in figures.items()
        if stage in known_names()
        for title, names in find_stage(stage).charts.items()
    ]
    charts.append(
        line_chart("GRPO: tool calls by difficulty", _calls_by_difficulty(episodes), smooth=SMOOTH)
    )
    return "".join(charts)


def alarm_list(alarms: Sequence[str]) -> str:
    """Render the alarms of the training; empty text without any."""
    items = "".join(f"<li>{escape(alarm)}</li>" for alarm in alarms)
    return f"<section class='alarms'><h3>Alarms</h3><ul>{items}</ul></section>" if items else ""


def _calls_by_difficulty(episodes: Sequence[Episode]) -> dict[str, Series]:
    counts: dict[tuple[Difficulty, int], list[int]] = {}
    for e in episodes:
        if e.is_valid:
            counts.setdefault((e.difficulty, e.step), []).append(e.tool_calls)
    return {
        str(difficulty): [
            (step, sum(calls) / len(calls))
            for (found, step), calls in sorted(counts.items(), key=lambda item: item[0][1])
            if found is difficulty
        ]
        for difficulty in Difficulty
    }


def _tiles(summary: Summary) -> str:
    tiles: list[str] = []
    for phase in summary.phases:
        policy, mode = phase.split("/")
        rate = summary.cells[phase, WHOLE].accuracy
        if rate.count:
            tiles.append(_tile(f"{rate.share:.1%}", f"{policy}, {mode}: right", ""))
    for mode in dict.fromkeys(phase.split("/")[1] for phase in summary.phases):
        gap = summary.differences.get((mode, WHOLE))
        if gap is not None and gap.count:
            style = "good" if gap.low > 0 else "bad" if gap.high < 0 else ""
            bounds = f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
            tiles.append(_tile(f"{100 * gap.mean:+.1f}", f"points, {mode} (95 %: {bounds})", style))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(figure: str, words: str, style: str) -> str:
    shown = f'<b class="{style}">{escape(figure)}</b><span>{escape(words)}</span>'
    return f'<div class="tile">{shown}</div>'


def _tables(summary: Summary) -> str:
    return "".join(
        f"<h3>{escape(mode)}</h3>" + _table(table_head(summary), table_rows(summary, mode))
        for mode in summary.modes
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f'<tr class="{"first" if row[0] in ("all", "easy") else "next"}">'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead>{body}</table></div>'


def _footnote(summary: Summary) -> str:
    lines = [
        "Right: percent, with Wilson's 95 % interval. Differences: points on the same tasks, with "
        "the bootstrap's 95 % interval. Code ran: share of tool calls without an error.",
        *(lost_lines(summary) or ["No episode was lost to our infrastructure."]),
    ]
    lines += [
        f"{phase}: {rate.share:.1%} within 10 % of the true count"
        for phase, rate in summary.within_tenth.items()
        if not math.isnan(rate.share)
    ]
    return "".join(f"<p class='note'>{escape(line)}</p>" for line in lines)


def _lineage(stages: Sequence[StageRun]) -> str:
    rows = [
        (
            stage.stage,
            stage.id,
            ", ".join(str(value) for value in stage.inputs.values()) or "-",
            format_seconds(stage.seconds),
            stage.code_version,
        )
        for stage in stages
    ]
    return _table(("stage", "run", "from", "time", "code"), rows)
