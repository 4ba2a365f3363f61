"""The report as Markdown: the table and the facts, for README files, pull requests, terminals."""

from __future__ import annotations

from collections.abc import Sequence

from ..results import Summary, difference_lines, table_rows
from ..store import StageRun


def render_markdown(run: StageRun, summary: Summary, stages: Sequence[StageRun]) -> str:
    """Write the report's figures."""
    head, rows = table_rows(summary)
    lines = [
        f"# {run.id}",
        "",
        f"Seed {run.seed}, suite {run.parameters.get('suite', '')}, commit {run.git_commit}.",
        "",
        *(f"- {line}" for line in difference_lines(summary)),
        "",
        _row(head),
        _row(["---"] * len(head)),
        *(_row(row) for row in rows),
        "",
        *(
            f"- {phase}: {rate.share:.1%} within 10 % of the true count"
            for phase, rate in summary.within_tenth.items()
        ),
        "",
        "Stages: "
        + ", ".join(f"{stage.stage} {stage.seconds or 0:.0f} s (`{stage.id}`)" for stage in stages)
        + ".",
        "",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
