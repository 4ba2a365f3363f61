"""Checks deployments with Prefect's own rules before one of them is made: all of them, or none."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from datetime import timedelta
from pathlib import Path

from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.flows import load_flow_from_entrypoint
from pydantic import ValidationError

from ..flows_file import SettingsError
from ..settings import Deployment, Schedule
from . import FLOWS, pipeline

MODULE = "codedance.pipelines.flows"
OURS = {**FLOWS, "pipeline": pipeline}


def check_deployments(path: Path, deployments: Sequence[Deployment]) -> list[str]:
    """Refuse deployments that Prefect would refuse, before the first is made.

    Returns:
        The name of each on the server: ``flow/deployment``.

    Raises:
        SettingsError: With the deployment's name, what is wrong, and what to change.
    """
    names = [f"{_flow_name(path, entry)}/{entry.name}" for entry in deployments]
    for name, entry in zip(names, deployments, strict=True):
        for schedule in entry.schedules:
            _check_schedule(f"{path}: deployment {name}", schedule)
        slugs = [schedule.slug for schedule in entry.schedules if schedule.slug]
        _refuse_twice(f"{path}: deployment {name} has two schedules with the slug", slugs)
    _refuse_twice(f"{path}: two deployments are called", names)
    return names


def _check_schedule(place: str, schedule: Schedule) -> None:
    try:
        if schedule.cron is not None:
            CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
        elif schedule.rrule is not None:
            RRuleSchedule(rrule=schedule.rrule, timezone=schedule.timezone or "UTC")
        elif schedule.interval is not None:
            interval = timedelta(seconds=schedule.interval)
            IntervalSchedule(interval=interval, timezone=schedule.timezone)
    except ValidationError as error:
        problems = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
        raise SettingsError(f"{place}: {problems}") from error
    except (OverflowError, ValueError) as error:
        raise SettingsError(f"{place}: interval {schedule.interval}: {error}") from error


def _flow_name(path: Path, entry: Deployment) -> str:
    """Return the name of a deployment's flow, which is loaded where it is the user's own."""
    module, _, name = entry.entrypoint.rpartition(".")
    if module == MODULE:
        if name not in OURS:
            raise SettingsError(f"{path}: there is no flow {name!r}, only {', '.join(OURS)}")
        return str(OURS[name].name)
    if entry.pull:
        return "?"  # its code is fetched where it runs; Prefect alone knows it
    try:
        with _current_folder_first():
            flow = load_flow_from_entrypoint(entry.entrypoint)
    except Exception as error:  # whatever the user's module raises
        raise SettingsError(
            f"{path}: deployment {entry.name}: no flow at {entry.entrypoint}: {error}"
        ) from error
    return str(flow.name)


@contextlib.contextmanager
def _current_folder_first() -> Generator[None]:
    """Find modules in the current folder, as ``python -m prefect deploy`` does."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def _refuse_twice(problem: str, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SettingsError(f"{problem} {twice[0]!r}: rename one")
