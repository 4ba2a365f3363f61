"""The whole of flows.yaml: presets, and the deployments as Prefect reads them."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import Field, create_model

from .schedules import Schedule
from .sections.sandbox_settings import Count
from .settings import Preset, preset_model
from .strict_model import StrictModel

FLOWS_MODULE = "codedance.pipelines.flows"
"""Module of our flows, in the entrypoints of deployments."""


class WorkPool(StrictModel):
    """The work pool in which a deployment's runs are queued."""

    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = Field(default_factory=dict[str, Any])


class ConcurrencyLimit(StrictModel):
    """Largest number of concurrent runs of a deployment, and what happens to further ones."""

    limit: Count
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"


class Deployment(StrictModel):
    """One entry of Prefect's deployments list."""

    name: str
    entrypoint: str
    description: str | None = None
    version: str | None = None
    tags: list[str] = Field(default_factory=list[str])
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    schedules: list[Schedule] = Field(default_factory=list[Schedule])
    work_pool: WorkPool | None = None
    concurrency_limit: Count | ConcurrencyLimit | None = None
    pull: list[dict[str, Any]] | None = None
    enforce_parameter_schema: bool = True


class FlowsFile(StrictModel):
    """The whole of flows.yaml."""

    name: str | None = None
    prefect_version: str | None = Field(default=None, alias="prefect-version")
    pull: list[dict[str, Any]] | None = None
    deployments: list[Deployment] = Field(default_factory=list[Deployment])
    presets: dict[str, Preset]


@cache
def flows_model() -> type[FlowsFile]:
    """Return the model of flows.yaml, with the sections of other packages' stages.

    Raises:
        StageLoadError: A stage of another package cannot be loaded.
    """
    preset = preset_model()
    if preset is Preset:
        return FlowsFile
    presets: Any = dict.__class_getitem__((str, preset))
    return create_model("FlowsFile", __base__=FlowsFile, presets=(presets, ...))
