"""Sends the metrics of past runs to tracking tools: all of them, or what a tool lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ...config.home import Home
from ...config.server_settings import SinkName, TrackingSettings
from ...store.lineage import PIPELINE, Lineage, StageRun
from .points import PointReader
from .sink import SinkRun, SinkStatus, open_sink

_STATUS: dict[str, SinkStatus] = {"finished": "finished", "interrupted": "interrupted"}


def sink_run(run: StageRun, project: str, root: Path) -> SinkRun:
    """Return a stage run as tools show it: in the group of its pipeline run."""
    return SinkRun(run.id, run.parent or run.id, project, run.parameters, root)


def send_runs(
    home: Home,
    lineage: Lineage,
    runs: Sequence[StageRun],
    names: Sequence[SinkName],
    say: Callable[[str], None],
) -> None:
    """Bring tools up to date with stage runs; those that are running are left to their processes.

    Raises:
        Exception: Whatever a tool's client raises; what was sent before is recorded.
    """
    for run in runs:
        if run.stage == PIPELINE:
            continue
        if run.status == "running":
            say(f"{run.id}: left out, since it is running; name the tools in tracking.also")
            continue
        for name in names:
            place = _send(name, sink_run(run, _project(lineage, run), home.root), home, run.status)
            say(f"{run.id}: {f'sent to {place}' if place else f'up to date in {name}'}")


def _send(name: SinkName, run: SinkRun, home: Home, status: str) -> str:
    """Send what a tool lacks of a run; return where to look, empty if it lacks nothing."""
    reader = PointReader(home.stages / run.id, name)
    points = reader.read()
    if not points:
        return ""
    sink = open_sink(name)
    place = sink.begin(replace(run, sent=reader.sent, newest=reader.newest))
    sink.log(points)
    sink.end(_STATUS.get(status, "failed"))
    reader.confirm(is_kept=True)
    return place


def _project(lineage: Lineage, run: StageRun) -> str:
    """Return the project that the settings of the pipeline run named, or the default one."""
    found = lineage.find(id=run.parent) if run.parent else []
    tracking = found[0].parameters.get("tracking", {}) if found else {}
    return tracking.get("project", TrackingSettings().project)
