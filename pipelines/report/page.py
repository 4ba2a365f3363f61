"""The report as one HTML file that needs nothing beside it and runs no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from ...envs.types import Band
from ..results import WHOLE, Summary, cell_texts, difference_lines
from ..store import Episode, StageRun
from .chart import Series, line_chart
from .style import STYLE

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
SMOOTH = 5
CURVES = (
    ("GRPO: reward", ("reward",)),
    ("GRPO: accuracy while sampling", ("accuracy",)),
    ("GRPO: reward terms", ("rewards/tool_sequence/mean", "rewards/format/mean")),
    ("GRPO: tool calls an episode", ("tool_calls/mean",)),
    ("GRPO: execution success", ("execution_success",)),
    ("GRPO: entropy", ("entropy",)),
)


def render_page(
    run: StageRun,
    summary: Summary,
    stages: Sequence[StageRun],
    *,
    charts: str,
    gallery: str,
) -> str:
    """Put the page together."""
    facts = f"seed {run.seed}, suite {run.parameters.get('suite', '')}, commit {run.git_commit}"
    differences = "".join(f"<p>{escape(line)}</p>" for line in difference_lines(summary))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>CodeDance: {escape(run.id)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(run.id)}</h1><p class='sub'>{escape(facts)}</p>{_tiles(summary)}"
        f"<h2>Held-out results</h2>{differences}{_table(summary)}{_footnote(summary)}"
        f"<h2>Training</h2><div class='charts'>{charts}</div>"
        f"<h2>Episodes</h2>{gallery}"
        f"<h2>How it was made</h2>{_lineage(stages)}</main></body></html>"
    )


def render_charts(
    sft: Mapping[str, Series], grpo: Mapping[str, Series], episodes: Sequence[Episode]
) -> str:
    """Draw the curves of both trainings, and the tool calls by band while GRPO went on."""
    charts = [line_chart("SFT: loss", {"loss": sft.get("loss", ())}, smooth=SMOOTH)]
    for title, names in CURVES:
        lines = {name: grpo.get(name, ()) for name in names}
        charts.append(line_chart(title, lines, smooth=SMOOTH))
    charts.append(line_chart("GRPO: tool calls by band", _calls_by_band(episodes), smooth=SMOOTH))
    return "".join(charts)


def _calls_by_band(episodes: Sequence[Episode]) -> dict[str, Series]:
    counts: dict[tuple[Band, int], list[int]] = {}
    for e in episodes:
        if e.is_valid:
            counts.setdefault((e.difficulty, e.step), []).append(e.tool_calls)
    return {
        str(band): [
            (step, sum(calls) / len(calls))
            for (found, step), calls in sorted(counts.items(), key=lambda item: item[0][1])
            if found is band
        ]
        for band in Band
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
    return f'<div class="tile"><b class="{style}">{escape(figure)}</b><span>{escape(words)}</span></div>'


def _table(summary: Summary) -> str:
    names = (
        "group",
        "policy",
        "mode",
        "accuracy (95 %)",
        "tool calls",
        "execution success",
        "lost",
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    rows: list[str] = []
    for group in summary.groups:
        for number, phase in enumerate(summary.phases):
            policy, mode = phase.split("/")
            cells = [group if number == 0 else "", policy, mode]
            cells += cell_texts(summary.cells[phase, group])
            style = ' class="first"' if number == 0 else ""
            rows.append(f"<tr{style}>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{"".join(rows)}</table></div>'


def _footnote(summary: Summary) -> str:
    lines = [
        "Intervals are Wilson's, 95 %. Episodes that our infrastructure lost are counted under "
        "“lost” and left out of every other figure."
    ]
    lines += [
        f"{phase}: {rate.share:.1%} within 10 % of the true count"
        for phase, rate in summary.within_tenth.items()
        if not math.isnan(rate.share)
    ]
    return "".join(f"<p class='note'>{escape(line)}</p>" for line in lines)


def _lineage(stages: Sequence[StageRun]) -> str:
    rows = "".join(
        "<tr class='first'>"
        + "".join(
            f"<td>{escape(text)}</td>"
            for text in (
                stage.stage,
                stage.id,
                ", ".join(str(value) for value in stage.inputs.values()) or "–",
                f"{stage.seconds or 0:.0f} s",
                stage.code_version,
            )
        )
        + "</tr>"
        for stage in stages
    )
    head = "".join(f"<th>{n}</th>" for n in ("stage", "run", "from", "time", "code"))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{rows}</table></div>'
