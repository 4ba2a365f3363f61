"""Check all deployments with Prefect's own rules before any of them is created."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from datetime import timedelta
from pathlib import Path

from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import get_current_settings
from prefect.types.names import BANNED_CHARACTERS
from pydantic import ValidationError

from ...envs import load_suite
from ...envs.suites import SuiteError
from ...envs.suites.loading import known_suites
from ..config.deployments import FLOWS_MODULE, Deployment
from ..config.schedules import Schedule
from ..config.yaml_file import SettingsError
from . import FLOWS, pipeline

OURS = {**FLOWS, "pipeline": pipeline}
RESERVED = "prefect"
"""Prefix of work pool names that Prefect's server reserves, in upper or lower case."""


def check_deployments(path: Path, deployments: Sequence[Deployment]) -> list[str]:
    """Refuse deployments that Prefect would refuse, before the first is created.

    Returns:
        The name of each deployment on the server: ``flow/deployment``.

    Raises:
        SettingsError: A deployment is invalid; the message names it, the problem and the remedy.
    """
    names = [f"{_flow_name(path, entry)}/{entry.name}" for entry in deployments]
    for name, entry in zip(names, deployments, strict=True):
        place = f"{path}: deployment {name}"
        _check_name(place, entry.name)
        _check_work_pool(place, entry)
        _check_suites(place, entry)
        for schedule in entry.schedules:
            _check_schedule(place, schedule)
        slugs = [schedule.slug for schedule in entry.schedules if schedule.slug]
        _refuse_twice(f"{place} has two schedules with the slug", slugs)
    _refuse_twice(f"{path}: two deployments are called", names)
    return names


def _check_name(place: str, name: str) -> None:
    """Refuse a name that is blank or has characters that Prefect does not accept."""
    if not name.replace("'", "").replace('"', "").strip():
        raise SettingsError(f"{place}: the name {name!r} is empty: write one")
    if found := [character for character in BANNED_CHARACTERS if character in name]:
        raise SettingsError(
            f"{place}: the name {name!r} contains {found[0]!r}: "
            f"Prefect accepts none of {' '.join(BANNED_CHARACTERS)}, rename it"
        )


def _check_work_pool(place: str, entry: Deployment) -> None:
    """Refuse a deployment whose work pool is missing or has an invalid name.

    ``prefect deploy``, which ``codedance flows serve`` calls too, needs a pool for each deployment;
    `Flow.serve`, which does not, is called by neither.
    """
    if entry.work_pool is None:
        if not get_current_settings().deployments.default_work_pool_name:
            raise SettingsError(
                f"{place}: key 'work_pool' is missing: add work_pool: {{name: codedance-process}}"
            )
        return
    name = entry.work_pool.name
    place = f"{place}: work_pool.name"
    _check_name(place, name)
    if name.lower().startswith(RESERVED):
        raise SettingsError(
            f"{place}: {name!r} begins with {RESERVED!r}, which Prefect reserves: rename it"
        )
    try:
        WorkPoolCreate(name=name)
    except ValidationError as error:
        raise SettingsError(f"{place}: {name!r}: {_problems(error)}: rename it") from error


def _check_suites(place: str, entry: Deployment) -> None:
    """Refuse an unknown suite; files are looked up only where the flow runs."""
    if entry.entrypoint.rpartition(".")[0] != FLOWS_MODULE:
        return  # the user's own flow, with its own parameters
    for given in (entry.parameters, *(schedule.parameters for schedule in entry.schedules)):
        suite = given.get("suite")
        if not isinstance(suite, str) or suite.endswith((".jsonl", ".py")) or "{{" in suite:
            continue
        try:
            load_suite(suite, split="test")
        except SuiteError as error:
            if not _is_elsewhere(suite.partition(":")[0]):
                raise SettingsError(f"{place}: parameter suite: {error}") from error


def _is_elsewhere(suite: str) -> bool:
    """Return whether a suite is a data set that is missing only on this machine."""
    if suite not in known_suites():
        return False
    try:
        load_suite(suite, split="test")
    except SuiteError:
        return True
    return False


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
        raise SettingsError(f"{place}: {_problems(error)}") from error
    except (OverflowError, ValueError) as error:
        raise SettingsError(f"{place}: interval {schedule.interval}: {error}") from error


def _problems(error: ValidationError) -> str:
    return "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())


def _flow_name(path: Path, entry: Deployment) -> str:
    """Return the name of a deployment's flow; a user's own flow is loaded for it."""
    module, _, name = entry.entrypoint.rpartition(".")
    if module == FLOWS_MODULE:
        if name not in OURS:
            raise SettingsError(f"{path}: there is no flow {name!r}, only {', '.join(OURS)}")
        return str(OURS[name].name)
    if entry.pull:
        return "?"  # its code is pulled where it runs; only Prefect knows the name
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
    """Import modules from the current folder first, as ``python -m prefect deploy`` does."""
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
