"""The end of a pipeline run: report and viewer, row in the lineage, page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.results import summarise
from ..config.registry import EVALUATION
from ..report import Report, make_report
from ..runs.run_page import run_tags
from ..runs.runner import find_input, unfinished_stages
from ..store.lineage import LOST, StageRun, Status
from ..viewer import make_viewer

if TYPE_CHECKING:
    from ..runs.session import RunSession


def finish_pipeline(session: RunSession, pipeline: StageRun) -> Report:
    """Write the report and the viewer, and mark the pipeline run as finished.

    Where a stage is missing (one that reads the evaluation), it stays unfinished.
    """
    run = session.store.lineage.get(pipeline.id)
    evaluation = find_input(session, run, EVALUATION)
    report = make_report(session, run, evaluation)
    make_viewer(session.store, session.home, [run], report.folder)
    summary = summarise(session.store, evaluation)
    session.tracker.describe(run.id, report.text, tags=run_tags(run, session.store))
    figures = {
        f"{phase}/accuracy": summary.cells[phase, "all"].accuracy.share for phase in summary.phases
    }
    session.tracker.metrics(run.id, 0, figures)
    session.tracker.artifact(run.id, report.folder, folder="report")
    outputs = {name: value for name, value in run.outputs.items() if name != LOST}
    outputs |= {"report": str(report.html)}
    curated = run.outputs.get("curate")
    curation = session.store.lineage.get(str(curated)).outputs if curated else {}
    if lost := {**curation.get(LOST, {}), **evaluation.outputs.get(LOST, {})}:
        outputs[LOST] = lost
    status: Status = "interrupted" if run.id not in session.pipelines else "running"
    if not unfinished_stages(session, run):
        status = "finished"
    if (status, outputs) != (run.status, run.outputs):  # else the time of its end stays
        session.store.lineage.mark(run.id, status, outputs=outputs)
    return report


def is_finished_by(session: RunSession, stage: str, pipeline: StageRun) -> bool:
    """Return whether a pipeline run is to be finished after a stage that was run alone.

    That stage is the evaluation, or the last missing one (which reads the evaluation).
    """
    run = session.store.lineage.get(pipeline.id)
    return stage == EVALUATION or not (run.is_finished or unfinished_stages(session, run))
