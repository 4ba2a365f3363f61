"""What the two trainers' stages share: each step's figures to the bar and to the tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..metrics_file import append_metrics
from ..progress import Bar, format_figures
from .context import StageContext


def follow(
    context: StageContext, bar: Bar, *, shown: Sequence[str]
) -> Callable[[int, Mapping[str, float]], None]:
    """Give the function that a trainer calls after each step.

    Args:
        context: Of the stage.
        bar: Shows the number of steps done.
        shown: Metrics that the bar shows.
    """

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        append_metrics(context.folder, step, metrics)
        context.tracker.metrics(context.run.id, step, metrics)
        bar.reach(step, note=format_figures({n: metrics[n] for n in shown if n in metrics}))

    return on_step
