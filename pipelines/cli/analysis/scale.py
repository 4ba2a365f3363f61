"""``codedance scale``: accuracy by tokens, for more turns, more samples, a second look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion
from ..exit_codes import leave_incomplete
from ..options import Json, SandboxName, Set
from ..server_options import BaseUrl, Notes, load_named

if TYPE_CHECKING:
    from ....policies.analysis.scaling import ScalingPoint

WIDTH = 30


def scale(  # noqa: PLR0913 - the options of the command
    policy: Annotated[
        str,
        typer.Option(
            help="nano, oracle, random, a checkpoint folder or a hub id.",
            autocompletion=completion.policies,
        ),
    ] = "nano",
    suite: Annotated[
        str,
        typer.Option(
            "--suite",
            "--tasks",
            help="A suite, or your own tasks.",
            autocompletion=completion.suites,
        ),
    ] = "nano",
    limit: Annotated[int, typer.Option(min=1, help="Number of held-out tasks.")] = 42,
    samples: Annotated[int, typer.Option(min=1, help="Largest majority vote.")] = 8,
    sandbox_name: SandboxName = None,
    base_url: BaseUrl = None,
    notes: Notes = None,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Measure the effect of more turns, a majority vote or a second look at test time."""
    from ....policies.analysis.scaling import scale as measure
    from ....policies.rollouts.losses import Losses
    from ...config.presets import read_overrides
    from ...runs.session import open_session
    from ...runs.used_sandbox import sandbox_for
    from ...stages.draws import held_out_tasks
    from ..document import document
    from ..output import say

    overrides = read_overrides(settings)
    losses = Losses()
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64) if count < samples] + [samples]
    with document(json) as publish, open_session(track=False) as session:
        tasks = held_out_tasks(suite, limit, whole=True)
        session.progress.say(f"playing {len(tasks)} tasks, {samples + 5} times each …")
        sandbox = session.sandbox(sandbox_for(policy, sandbox_name, overrides=overrides))
        acting = load_named(policy, base_url=base_url, notes=notes)
        points = measure(acting, tasks, sandbox=sandbox, samples=counts, on_lost=losses)
        for line in scale_lines(points):
            say(line)
        if losses.count:
            say(f"{losses.count} episodes lost and left out: {losses.reason}")
        path = session.home.reports / f"scale-{policy.rstrip('/').split('/')[-1]}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(scale_figure(points), encoding="utf-8")
        say(f"figure in {path}")
        publish(points)
    leave_incomplete({"is_complete": not losses.count})


def scale_lines(points: Sequence[ScalingPoint]) -> list[str]:
    """Return the table, with bars, 80 columns wide."""
    lines = [f"{'method':<13}{'amount':>7}{'right':>9}{'tokens':>9}{'tasks':>7}"]
    return lines + [_line(one) for one in points]


def _line(point: ScalingPoint) -> str:
    """Return the row of a setting; dashes if all its tasks were lost to our infrastructure."""
    head = f"{point.method:<13}{point.amount:>7}"
    if point.accuracy is None or point.tokens is None:
        return f"{head}{'-':>9}{'-':>9}{point.tasks:>7}"
    bar = "#" * round(WIDTH * point.accuracy)
    row = f"{head}{point.accuracy:>9.1%}{point.tokens:>9.0f}{point.tasks:>7}"
    return f"{row}  {bar}".rstrip()


def scale_figure(points: Sequence[ScalingPoint]) -> str:
    """Draw accuracy over tokens, one line per method."""
    from ...charts.chart import line_chart
    from ...charts.templates import SHARED, render

    lines: dict[str, list[tuple[float, float]]] = {}
    for one in points:
        if one.tokens is not None and one.accuracy is not None:
            lines.setdefault(one.method, []).append((one.tokens, one.accuracy))
    lines = {method: sorted(line) for method, line in lines.items()}
    chart = line_chart("Accuracy by generated tokens per task", lines)
    return render(SHARED, "chart_page.html.j2", chart=chart)
