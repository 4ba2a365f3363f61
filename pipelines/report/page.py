"""The report as one self-contained HTML file without scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...envs.types import Difficulty
from ..analysis.results import WHOLE, Summary, difference_lines, lost_lines, table_head, table_rows
from ..charts.chart import Series, line_chart
from ..charts.templates import render
from ..config.registry import find_stage, known_names
from ..runs.progress import format_seconds
from ..store.episodes import Episode
from ..store.lineage import StageRun
from .gallery import ASSETS

if TYPE_CHECKING:
    from markupsafe import Markup

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
) -> Markup:
    """Render the page; its last three parts are rendered already, plain text is escaped."""
    return render(
        ASSETS,
        "report.html.j2",
        policy=POLICY,
        run=run,
        tiles=_tiles(summary),
        differences=difference_lines(summary),
        head=table_head(summary),
        tables={mode: table_rows(summary, mode) for mode in summary.modes},
        notes=_notes(summary),
        charts=charts,
        emergence=emergence,
        gallery=gallery,
        lineage=_lineage(stages),
    )


def render_charts(
    figures: Mapping[str, Mapping[str, Series]],
    episodes: Sequence[Episode],
    alarms: Sequence[str] = (),
) -> Markup:
    """Draw the curves that the stages declare, and the tool calls by difficulty during GRPO.

    Args:
        figures: Metrics of each stage, by stage.
        episodes: Episodes of GRPO.
        alarms: Alarms of the training, listed before the curves.
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
    return render(ASSETS, "training.html.j2", alarms=alarms, charts=filter(None, charts))


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


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """Return the figure, the words and the style of each tile."""
    tiles: list[tuple[str, str, str]] = []
    for phase in summary.phases:
        policy, mode = phase.split("/")
        rate = summary.cells[phase, WHOLE].accuracy
        if rate.count:
            tiles.append((f"{rate.share:.1%}", f"{policy}, {mode}: right", ""))
    for mode in dict.fromkeys(phase.split("/")[1] for phase in summary.phases):
        gap = summary.differences.get((mode, WHOLE))
        if gap is not None and gap.count:
            style = "good" if gap.low > 0 else "bad" if gap.high < 0 else ""
            bounds = f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
            tiles.append((f"{100 * gap.mean:+.1f}", f"points, {mode} (95 %: {bounds})", style))
    return tiles


def _notes(summary: Summary) -> list[str]:
    return [
        *(lost_lines(summary) or ["No episode was lost to our infrastructure."]),
        *(
            f"{phase}: {rate.share:.1%} within 10 % of the true count"
            for phase, rate in summary.within_tenth.items()
            if not math.isnan(rate.share)
        ),
    ]


def _lineage(stages: Sequence[StageRun]) -> list[tuple[str, ...]]:
    return [
        (
            stage.stage,
            stage.id,
            ", ".join(str(value) for value in stage.inputs.values()) or "-",
            format_seconds(stage.seconds),
            stage.code_version,
        )
        for stage in stages
    ]
