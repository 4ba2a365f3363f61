"""What training stages share: checks of settings, step callback, dataset, results of a page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...policies.training.grpo.alarms import AlarmBoard
from ...policies.training.grpo.distillation.settings import (
    check_distillation,
    check_teacher_servers,
)
from ..charts.figures import write_figures
from ..charts.markdown_table import markdown_table
from ..config.registry import find_stage
from ..config.settings import GRPOSettings, Preset
from ..config.strict_model import read_as
from ..runs.context import StageContext
from ..runs.progress import Bar, format_figures
from ..runs.run_page import data_digest
from ..runs.runner import StageError
from ..store.lineage import StageRun
from ..store.store import Store
from ..tracking.alarm_file import append_alarm
from ..tracking.metrics_file import Series, append_metrics, append_time, read_metrics, read_steps
from .draws import check_family_names
from .step_figures import StepFigures

COMPARED = 10
"""Steps at either end of a training whose means are compared."""


def check_trainings(preset: Preset) -> None:
    """Refuse settings of the trainings that do not fit together, before any stage works.

    Raises:
        StageError: The suite lacks a family that they name, or a distillation cannot be done.
    """
    check_family_names(preset)
    grpo, rollout = read_as(preset.grpo, GRPOSettings), preset.rollout
    try:
        check_distillation(grpo.teacher, grpo.distillation_weight, grpo.reward_weight)
        urls, others = rollout.teacher_urls, rollout.urls
        check_teacher_servers(urls, grpo.teacher, grpo.temperature, of_replies=others)
    except ValueError as error:
        raise StageError(str(error)) from error


def follow(
    context: StageContext,
    bar: Bar,
    *,
    shown: Sequence[str],
    board: AlarmBoard | None = None,
    extra: StepFigures | None = None,
) -> Callable[[int, Mapping[str, float]], None]:
    """Return the callback that a trainer calls after each step.

    Args:
        context: Context of the stage.
        bar: Progress bar for the number of steps done.
        shown: Names of the metrics that the bar shows.
        board: Alarm board; a resumed run first replays the earlier steps to it.
        extra: Further metrics, from trajectories and the clock; those from the clock are not
            results, and are stored in a separate file.
    """
    has_begun = False
    beside = extra or StepFigures()
    before = time.monotonic()

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal has_begun, before
        context.check_claim()
        before, took = time.monotonic(), time.monotonic() - before
        append_time(context.folder, step, took)
        if board is not None and not has_begun:
            for earlier, figures in read_steps(context.folder).items():
                if earlier < step:
                    board.observe(earlier, figures)
        has_begun = True
        metrics = {**metrics, **beside.results()}
        append_metrics(context.tracker.writer, context.folder, step, metrics)
        context.tracker.metrics(context.run.id, step, beside.rates(metrics))
        bar.reach(step, note=format_figures({n: metrics[n] for n in shown if n in metrics}))
        if board is not None:
            _ring(context, bar, board, step, metrics)

    return on_step


def _ring(
    context: StageContext, bar: Bar, board: AlarmBoard, step: int, metrics: Mapping[str, float]
) -> None:
    """Report a new alarm to the terminal, the stage's folder and the callback."""
    for alarm in board.observe(step, metrics):
        bar.ring(alarm.name)
        context.progress.say(f"ALARM at step {alarm.step}: {alarm.message}")
        append_alarm(context.folder, alarm)
        context.on_alarm(context.run, alarm)


def record_curated(context: StageContext) -> None:
    """Record the curated tasks as the dataset of a training."""
    run = context.run
    rows = [row for row in context.store.curation(str(run.inputs["curate"])) if row.is_kept]
    difficulties = Counter(f"difficulty/{row.band}" for row in rows)
    shown = Counter(f"shown/{row.demonstration}" for row in rows)
    context.tracker.dataset(
        run.id,
        f"{context.preset.suite} curated",
        digest=data_digest(context.store, run),
        profile={"tasks": len(rows), **difficulties, **shown},
        use="training",
    )


def record_figures(context: StageContext) -> None:
    """Draw the curves of a training as images, besides MLflow's own charts."""
    if write_figures(context.folder / "figures", read_metrics(context.folder)):
        context.tracker.artifact(context.run.id, context.folder / "figures", folder="figures")


def training_lines(_store: Store, run: StageRun, folder: Path) -> list[str]:
    """Return the results of a training, in Markdown: its first steps against its last."""
    series = read_metrics(folder)
    rows = [
        [name, _mean(series[name][:COMPARED]), _mean(series[name][-COMPARED:])]
        for name in find_stage(run.stage).compared
        if series.get(name)
    ]
    steps = max((points[-1][0] for points in series.values() if points), default=0)
    head = ["figure", f"first {COMPARED} steps", f"last {COMPARED} steps"]
    first = f"{steps} steps. Checkpoint: `{run.outputs.get('model')}`."
    return [first, "", *markdown_table(head, rows)]


def _mean(points: Series) -> str:
    return f"{sum(value for _, value in points) / len(points):.4g}" if points else "-"
