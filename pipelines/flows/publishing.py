"""Prefect artifacts: a stage's results as tables, text, figures and links on the run's page."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from prefect.artifacts import (
    acreate_image_artifact,
    acreate_link_artifact,
    acreate_markdown_artifact,
    acreate_table_artifact,
)

from ...policies.training.grpo.alarms import Alarm
from ..analysis.results import summarise, table_head, table_rows
from ..charts.chart import line_picture
from ..config.registry import EVALUATION, find_stage
from ..runs.session import RunSession
from ..store.lineage import StageRun
from ..tracking.metrics_file import read_metrics
from .links import run_address

SMOOTH = 5
Call = Coroutine[Any, Any, Any]


async def publish_stage(session: RunSession, run: StageRun) -> None:
    """Publish a finished stage run: outputs, data card, figures and MLflow link."""
    rows = [{"output": name, "value": value} for name, value in output_rows(run.outputs)]
    calls: list[Call] = [
        acreate_table_artifact(rows, key=f"{run.stage}-outputs", description=run.id),
        _publish_mlflow(session, run),
        *_figures(session.home.stages / run.id, run),
    ]
    card = run.outputs.get("card")
    if card is not None and Path(card).is_file():
        text = Path(card).read_text(encoding="utf-8")
        calls.append(acreate_markdown_artifact(text, key="data-card", description=run.id))
    if run.stage == EVALUATION:
        calls += _evaluation_tables(session, run)
    await asyncio.gather(*calls)  # concurrently: the flow waits for them


async def publish_alarm(run: StageRun, alarm: Alarm) -> None:
    """Publish an alarm on the flow run's page."""
    text = f"**Step {alarm.step}:** {alarm.message}"
    key = f"alarm-{artifact_key(alarm.name)}"
    await acreate_markdown_artifact(text, key=key, description=f"alarm of {run.id}")


async def publish_report(session: RunSession, run: StageRun, path: Path) -> None:
    """Publish the report of a pipeline run as text, with the paths of its pages.

    Args:
        session: Session with the home folder.
        run: The pipeline run.
        path: Path of the report's HTML page; its Markdown has the same stem.
    """
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    viewer = path.with_name("viewer.html")
    places = "".join(f"- `{place}`\n" for place in (path, viewer) if place.is_file())
    whole = f"{text}\n\nOn the machine that ran it:\n\n{places}"
    await acreate_markdown_artifact(whole, key="report", description=f"report of {run.id}")
    await _publish_mlflow(session, run)


def output_rows(outputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a row for each output, and for each entry of one that has several.

    >>> output_rows({"tasks": 24, "accuracy": {"sft/greedy": 0.25, "grpo/greedy": 0.5}})
    [('tasks', '24'), ('accuracy: sft/greedy', '0.25'), ('accuracy: grpo/greedy', '0.5')]
    """
    rows: list[tuple[str, str]] = []
    for name, value in outputs.items():
        if isinstance(value, Mapping):
            entries = cast("Mapping[str, Any]", value)
            rows += [(f"{name}: {entry}", str(entries[entry])) for entry in entries]
        else:
            rows.append((name, str(value)))
    return rows


def _evaluation_tables(session: RunSession, run: StageRun) -> list[Call]:
    summary = summarise(session.store, run)
    head = table_head(summary)
    return [
        acreate_table_artifact(
            [dict(zip(head, row, strict=True)) for row in table_rows(summary, mode)],
            key=f"evaluation-{mode}",
            description=run.id,
        )
        for mode in summary.modes
    ]


def _figures(folder: Path, run: StageRun) -> list[Call]:
    metrics = read_metrics(folder)
    calls: list[Call] = []
    for title, names in find_stage(run.stage).charts.items():
        lines = {name: metrics.get(name, []) for name in names}
        picture = line_picture(title, lines, smooth=SMOOTH)
        if picture:
            data = base64.b64encode(picture.encode()).decode()
            words = f"{title} ({_last_values(names, lines.values())}), {run.id}"
            key = f"figure-{artifact_key(title)}"
            address = f"data:image/svg+xml;base64,{data}"
            calls.append(acreate_image_artifact(address, key=key, description=words))
    return calls


def _last_values(names: Iterable[str], lines: Iterable[list[tuple[int, float]]]) -> str:
    found = [(name, points[-1][1]) for name, points in zip(names, lines, strict=True) if points]
    return ", ".join(f"{name} {value:.3g} at the end" for name, value in found)


async def _publish_mlflow(session: RunSession, run: StageRun) -> None:
    address = await run_address(session.home, run.id)
    if address is not None:
        key = f"mlflow-{artifact_key(run.stage)}"
        await acreate_link_artifact(
            address, link_text=f"{run.id} in MLflow", key=key, description=run.id
        )


def artifact_key(name: str) -> str:
    """Return a name in the form that Prefect requires of a key.

    >>> artifact_key("grpo/greedy_2")
    'grpo-greedy-2'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
