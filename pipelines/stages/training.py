"""Step callback of both training stages: metrics for the bar, the tracker and the alarms."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from ...policies.training.grpo.alarms import AlarmBoard
from ..runs.context import StageContext
from ..runs.progress import Bar, format_figures
from ..tracking.alarm_file import append_alarm
from ..tracking.metrics_file import MetricsFile, append_time, read_steps
from .step_figures import StepFigures


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
        extra: Further metrics, from trajectories and the clock; those from the clock are sent only
            to MLflow, since they are no results.
    """
    has_begun = False
    file = MetricsFile(context.folder)
    beside = extra or StepFigures()
    before = time.monotonic()

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal has_begun, before
        before, took = time.monotonic(), time.monotonic() - before
        append_time(context.folder, step, took)
        if board is not None and not has_begun:
            for earlier, figures in read_steps(context.folder).items():
                if earlier < step:
                    board.observe(earlier, figures)
        has_begun = True
        metrics = {**metrics, **beside.results()}
        file.append(step, metrics)
        context.tracker.metrics(context.run.id, step, {**metrics, **beside.rates(metrics)})
        bar.reach(step, note=format_figures({n: metrics[n] for n in shown if n in metrics}))
        if board is not None:
            _ring(context, bar, board, step, metrics)

    return on_step


def _ring(
    context: StageContext, bar: Bar, board: AlarmBoard, step: int, metrics: Mapping[str, float]
) -> None:
    """Report a new alarm to the terminal, the stage's folder, MLflow and the callback."""
    for alarm in board.observe(step, metrics):
        bar.ring(alarm.name)
        context.progress.say(f"ALARM at step {alarm.step}: {alarm.message}")
        append_alarm(context.folder, alarm)
        tag = f"codedance.alarm.{alarm.name}"
        context.tracker.tag(context.run.id, tag, f"step {alarm.step}: {alarm.message}")
        context.on_alarm(context.run, alarm)
