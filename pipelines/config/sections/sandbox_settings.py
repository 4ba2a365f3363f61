"""Settings of the sandbox that runs model code: `sandbox` of a preset in flows.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ....sandbox import Limits, open_sandbox
from ....sandbox.types import DEFAULT_LIBRARIES, Sandbox
from ..strict_model import LocalPath, StrictModel

Count = Annotated[int, Field(ge=1)]
Above = Annotated[float, Field(gt=0.0)]
Backend = Literal["local", "docker", "unsafe-subprocess"]


def _absolute_program(name: str) -> str:
    return str(Path(name).absolute()) if "/" in name else name  # else it is found on PATH


Program = Annotated[str, LocalPath(_absolute_program)]
_LIMITS = Limits()


class LimitSettings(StrictModel):
    """Resource limits of a sandbox session; `Limits` documents each field."""

    wall_seconds: Above = _LIMITS.wall_seconds
    cpu_seconds: Above = _LIMITS.cpu_seconds
    memory_mb: Count = _LIMITS.memory_mb
    processes: Count = _LIMITS.processes
    threads: Count = _LIMITS.threads
    open_files: Count = _LIMITS.open_files
    disk_mb: Count = _LIMITS.disk_mb
    output_characters: Count = _LIMITS.output_characters
    images: Count = _LIMITS.images
    image_pixels: Count = _LIMITS.image_pixels
    session_pixels: Count = _LIMITS.session_pixels


class SandboxSettings(StrictModel):
    """Settings of the sandbox that runs model code; `open_sandbox` documents each field.

    Attributes:
        backend: ``local``, ``docker``, or ``unsafe-subprocess`` (no isolation).
        floor: Minimum isolation level; None for the default.
        limits: Resource limits of every session.
        libraries: Modules that are imported before the first session.
        python: The worker's interpreter; None for the trainer's.
        image: Image of the docker backend; None for the default one.
    """

    backend: Backend = "local"
    floor: Literal["confined", "full"] | None = None
    limits: LimitSettings = LimitSettings()
    libraries: tuple[str, ...] = DEFAULT_LIBRARIES
    python: Program | None = None
    image: str | None = None


def open_configured(settings: SandboxSettings) -> Sandbox:
    """Open the sandbox that the settings describe.

    Raises:
        ValueError: The backend does not support the settings.
        SandboxError: This machine cannot run the backend.
    """
    return open_sandbox(
        settings.backend,
        limits=Limits(**settings.limits.model_dump()),
        python=settings.python,
        libraries=settings.libraries,
        floor=settings.floor,
        image=settings.image,
    )
