"""The report as Markdown: metrics and lineage, for README files, pull requests, terminals."""

from __future__ import annotations

from collections.abc import Sequence

from ..analysis.results import Summary, difference_lines, lost_lines, table_head, table_rows
from ..charts.markdown_table import markdown_table
from ..runs.progress import format_seconds
from ..store.lineage import StageRun


def render_markdown(
    run: StageRun, summary: Summary, stages: Sequence[StageRun], *, alarms: Sequence[str] = ()
) -> str:
    """Render the metrics of a report."""
    lines = [
        f"# {run.id}",
        "",
        f"Seed {run.seed}, suite {run.parameters.get('suite', '')}, commit {run.git_commit}.",
        "",
        *(f"- {line}" for line in (*difference_lines(summary), *lost_lines(summary))),
        *(f"- ALARM: {alarm}" for alarm in alarms),
        "",
        *(line for mode in summary.modes for line in _table(summary, mode)),
        *(
            f"- {phase}: {rate.share:.1%} within 10 % of the true count"
            for phase, rate in summary.within_tenth.items()
        ),
        "",
        "Stages: "
        + ", ".join(
            f"{stage.stage} {format_seconds(stage.seconds)} (`{stage.id}`)" for stage in stages
        )
        + ".",
        "",
    ]
    return "\n".join(lines)


def _table(summary: Summary, mode: str) -> list[str]:
    rows = table_rows(summary, mode)
    return [f"## Held-out tasks, {mode}", "", *markdown_table(table_head(summary), rows), ""]
