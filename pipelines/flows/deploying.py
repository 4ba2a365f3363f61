"""Register flows.yaml with a Prefect server: work pool, deployments, automations."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from ..config.deployments import Deployment
from ..config.flows_file import all_deployments
from ..config.yaml_file import read_yaml
from ..serving.named_server import check_named_server
from .checking import check_deployments
from .watching import close_lost_tasks, make_automations, watch_unfinished
from .work import TAG

POOL_DESCRIPTION = "Runs CodeDance's flows as processes of the worker's machine."


def deploy_all(path: Path) -> list[str]:
    """Register the deployments of ``path``, and all that they need, with the current server.

    Either all of them are registered, or none that was not there before.

    Returns:
        The work pools that a worker of this machine can serve: those of type process.

    Raises:
        SettingsError: flows.yaml is wrong; nothing was registered.
        PrefectAwayError: The user's server does not answer.
        DeployError: Prefect refused a deployment; the message has Prefect's output.
    """
    deployments = all_deployments(path)
    names = check_deployments(path, deployments)
    check_named_server()
    pools = {entry.work_pool.name for entry in deployments if entry.work_pool}
    types = asyncio.run(_prepare(pools))
    before = asyncio.run(_registered(names))
    environment = {**os.environ, "PWD": str(Path.cwd()), "PREFECT_LOGGING_LEVEL": "WARNING"}
    with whole_file(path, deployments) as file:
        arguments = ["--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        asyncio.run(_take_back(names, before))
        raise DeployError(f"prefect deploy failed:\n{done.stdout}{done.stderr}")
    return [name for name, kind in types.items() if kind == ProcessWorker.type]


@contextmanager
def whole_file(path: Path, deployments: Sequence[Deployment]) -> Generator[Path]:
    """Yield a file with all deployments for Prefect: ``path`` itself, where it has them all."""
    _, content = read_yaml(path)
    written: list[Any] = content.get("deployments") or []
    if len(written) == len(deployments):
        yield path
        return
    # Without null: `pull: null` would hide the file's own `pull` from Prefect.
    missing = deployments[len(written) :]
    added = [entry.model_dump(mode="json", exclude_none=True) for entry in missing]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        file.write_text(yaml.safe_dump({**content, "deployments": [*written, *added]}))
        yield file


class DeployError(RuntimeError):
    """Prefect refused a deployment; the message has Prefect's output."""


async def drop_missed() -> int:
    """Delete CodeDance's scheduled runs whose start time has passed.

    Returns:
        The number of deleted runs.
    """
    waiting = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        tags=FlowRunFilterTags(all_=[TAG]),
        expected_start_time=FlowRunFilterExpectedStartTime.model_validate(
            {"before_": datetime.now(UTC)}
        ),
    )
    dropped = 0
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=waiting):
            if run.auto_scheduled:
                await client.delete_flow_run(run.id)
                dropped += 1
    return dropped


async def _registered(names: Sequence[str]) -> dict[str, UUID]:
    """Return the ids of those deployments that the server has, by name."""
    found: dict[str, UUID] = {}
    async with get_client() as client:
        for name in names:
            with contextlib.suppress(ObjectNotFound):
                found[name] = (await client.read_deployment_by_name(name)).id
    return found


async def _take_back(names: Sequence[str], before: Mapping[str, UUID]) -> None:
    """Delete those deployments that were not there before."""
    after = await _registered(names)
    async with get_client() as client:
        for name in after.keys() - before.keys():
            await client.delete_deployment(after[name])


async def _prepare(pools: set[str]) -> dict[str, str]:
    """Create missing work pools and automations; return the type of each pool."""
    types: dict[str, str] = {}
    async with get_client() as client:
        for name in sorted(pools):
            try:
                pool = await client.read_work_pool(name)
            except ObjectNotFound:
                wanted = WorkPoolCreate(
                    name=name,
                    type=ProcessWorker.type,
                    description=POOL_DESCRIPTION,
                    base_job_template=ProcessWorker.get_default_base_job_template(),
                )
                pool = await client.create_work_pool(wanted)
            types[name] = pool.type
    await make_automations()
    await watch_unfinished()
    await close_lost_tasks()
    return types
