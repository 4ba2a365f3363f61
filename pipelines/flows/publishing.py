"""Prefect artifacts: what a stage made, as tables, text and links on the flow run's page."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import (
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_table_artifact,
)

from ...policies.alarms import Alarm
from ..desk import Desk
from ..report import Report
from ..results import summarise, table_head, table_rows
from ..store import StageRun


async def publish_stage(desk: Desk, run: StageRun) -> None:
    """Show a finished stage run: its outputs, its card, its figures."""
    rows = [{"output": name, "value": str(value)} for name, value in run.outputs.items()]
    await acreate_table_artifact(rows, key=f"{run.stage}-outputs", description=run.id)
    card = run.outputs.get("card")
    if card is not None and Path(card).is_file():
        text = Path(card).read_text(encoding="utf-8")
        await acreate_markdown_artifact(text, key="data-card", description=run.id)
    if run.stage == "evaluate":
        summary = summarise(desk.store, run)
        head = table_head(summary)
        for mode in summary.modes:
            rows = [dict(zip(head, row, strict=True)) for row in table_rows(summary, mode)]
            await acreate_table_artifact(rows, key=f"evaluation-{mode}", description=run.id)


async def publish_alarm(run: StageRun, alarm: Alarm) -> None:
    """Show an alarm on the flow run's page, and in its log."""
    get_run_logger().warning("step %s: %s", alarm.step, alarm.message)
    key = f"alarm-{alarm.name.replace('.', '-').replace('_', '-')}".lower()
    text = f"**Step {alarm.step}.** {alarm.message}"
    await acreate_markdown_artifact(text, key=key, description=f"alarm of {run.id}")


async def publish_report(desk: Desk, run: StageRun, report: Report) -> None:
    """Link the report and MLflow."""
    await acreate_link_artifact(
        report.html.as_uri(), link_text=f"report of {run.id}", key="report", description=run.id
    )
    if desk.home.mlflow_uri.startswith("http"):
        await acreate_link_artifact(desk.home.mlflow_uri, link_text="MLflow", key="mlflow")
