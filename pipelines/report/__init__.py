"""Report of a run: one HTML page with curves, tables and episodes, and a Markdown version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..analysis.emergence import training_emergence
from ..analysis.results import Summary, summarise
from ..store.lineage import StageRun
from ..tracking.alarm_file import read_alarms
from ..tracking.metrics_file import read_metrics
from .emergence import emergence_markdown, emergence_section
from .gallery import choose_sections, render_sections
from .markdown import render_markdown
from .page import render_charts, render_page

if TYPE_CHECKING:
    from ..runs.session import RunSession


@dataclass(frozen=True, slots=True)
class Report:
    """A written report.

    Attributes:
        folder: Folder with both files.
        html: Path of the HTML page.
        text: Text of the Markdown version.
        summary: Metrics of the evaluation.
    """

    folder: Path
    html: Path
    text: str
    summary: Summary


def make_report(session: RunSession, run: StageRun, evaluation: StageRun) -> Report:
    """Write the report of an evaluation, with the training curves of the evaluated stages."""
    store = session.store
    summary = summarise(store, evaluation)
    stages = _involved(session, run, evaluation)
    folders = {stage.stage: session.home.stages / stage.id for stage in stages}
    figures = {name: read_metrics(path) for name, path in folders.items()}
    grpo = next((stage for stage in stages if stage.stage == "grpo"), None)
    last = summary.phases[-1].split("/")[0] if summary.phases else ""
    shown = [e for e in store.episodes(evaluation.id) if e.phase == f"{last}/greedy"]
    gallery = render_sections(store, choose_sections(shown, seed=run.seed))
    folder = session.home.reports / run.id
    folder.mkdir(parents=True, exist_ok=True)
    alarms = [
        f"{name}, step {alarm.step}: {alarm.message}"
        for name, path in folders.items()
        for alarm in read_alarms(path)
    ]
    charts = render_charts(figures, store.episodes(grpo.id) if grpo is not None else (), alarms)
    text = render_markdown(run, summary, stages, alarms=alarms)
    emergence = training_emergence(store, grpo) if grpo is not None else None
    page = render_page(
        run,
        summary,
        stages,
        charts=charts,
        gallery=gallery,
        emergence="" if emergence is None else emergence_section(emergence),
    )
    if emergence is not None:
        (folder / "emergence.md").write_text(emergence_markdown(emergence), encoding="utf-8")
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(page, encoding="utf-8")
    return Report(folder, folder / "report.html", text, summary)


def _involved(session: RunSession, run: StageRun, evaluation: StageRun) -> list[StageRun]:
    """Return the stage runs of a run, and those that its evaluation depends on, in order."""
    found: dict[str, StageRun] = {}
    pending = [evaluation.id, *run.stage_runs.values()]
    while pending:
        stage = session.store.lineage.get(pending.pop())
        if stage.id not in found:
            found[stage.id] = stage
            pending.extend(str(value) for value in stage.inputs.values())
    return sorted(found.values(), key=lambda stage: stage.started_at)
