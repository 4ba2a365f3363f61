"""The sandbox for a policy's code: as recorded by the run that trained it, never a weaker one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.home import find_home
from ..config.sections.sandbox_settings import SandboxSettings
from ..config.settings import Preset

if TYPE_CHECKING:
    from ..store.lineage import Lineage, StageRun

_WEAKEST_FIRST = ("unsafe-subprocess", "local", "docker")


def recorded_sandbox(run: StageRun) -> SandboxSettings:
    """Return the sandbox settings that a pipeline run was begun with."""
    return SandboxSettings.model_validate(run.parameters.get("sandbox", {}))


def sandbox_for(
    policy: str,
    backend: str | None = None,
    preset: Preset | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> SandboxSettings:
    """Return the sandbox settings for evaluating or showing a policy.

    Args:
        policy: Name or folder of the policy. A checkpoint of a run uses that run's own sandbox.
        backend: Backend from the command line, which replaces only the backend.
        preset: Preset whose sandbox other policies use; None for ``quick`` of flows.yaml.
        overrides: Values over those settings: ``{"sandbox.limits.wall_seconds": 30}``.

    Raises:
        ValueError: There is no such backend.
        SettingsError: flows.yaml or an override is wrong; or no pipeline run records the
            checkpoint's sandbox any more and no backend is given: a default may be weaker than the
            recorded one.
        StoreError: The store, which records a checkpoint's run, cannot be read.
    """
    from ..config.flows_file import load_flows_file
    from ..config.yaml_file import SettingsError

    stage_run = _stage_run_of(policy)
    maker = None if stage_run is None else _maker(stage_run)
    if maker is not None:
        settings = Preset(sandbox=recorded_sandbox(maker))
    elif stage_run is not None and backend is None:
        raise SettingsError(
            f"the sandbox of {policy} is unknown: no pipeline run in the store made or reads "
            f"{stage_run} (pruned, or of another store?). Choose one with --sandbox docker or "
            "--sandbox local; or copy the folder elsewhere, to use the sandbox of flows.yaml"
        )
    else:
        settings = preset or load_flows_file().presets.get("quick", Preset())
    if backend is not None:
        settings = settings.with_backend(backend)
    return with_sandbox_overrides(settings.sandbox, overrides or {}, backend)


def with_sandbox_overrides(
    settings: SandboxSettings, overrides: Mapping[str, Any], backend: str | None = None
) -> SandboxSettings:
    """Return sandbox settings with single values replaced, for a command that reads no others.

    Args:
        settings: The settings.
        overrides: New values by their place: ``{"sandbox.limits.wall_seconds": 30}``.
        backend: Backend from the command line.

    Raises:
        SettingsError: An override is wrong, belongs to another part of a preset, or is given by an
            option too.
    """
    from ..config.presets import flat_overrides, with_overrides
    from ..config.yaml_file import SettingsError

    for key in overrides:
        if key.partition(".")[0] != "sandbox":
            raise SettingsError(
                f"--set {key}: this command reads only the sandbox's settings, such as "
                "sandbox.limits.wall_seconds=30"
            )
    preset = Preset(sandbox=settings)
    flat = flat_overrides(preset, overrides)
    if backend is not None and "sandbox.backend" in flat:
        raise SettingsError("--set sandbox.backend: --sandbox is given too: keep one of them")
    return with_overrides(preset, flat).sandbox


def _maker(stage_run: str) -> StageRun | None:
    """Return the pipeline run whose recorded sandbox applies to a stage's checkpoint.

    This is the run that made the stage. If it was pruned, it is a run that reads the stage, of
    several the one with the strongest backend; None without any.
    """
    from ..store.lineage import PIPELINE
    from ..store.store import open_store

    with open_store(find_home()) as store:
        for found in store.lineage.find(id=stage_run):
            if found.parent is not None:
                for parent in store.lineage.find(id=found.parent, stage=PIPELINE):
                    return parent
        return _strongest_reader(store.lineage, stage_run)


def _strongest_reader(lineage: Lineage, stage_run: str) -> StageRun | None:
    """Return the run with the strongest backend of those with a stage run among their outputs."""
    from ..store.lineage import PIPELINE

    return max(
        (run for run in lineage.find(stage=PIPELINE) if stage_run in run.outputs.values()),
        key=lambda run: _WEAKEST_FIRST.index(recorded_sandbox(run).backend),
        default=None,
    )


def _stage_run_of(policy: str) -> str | None:
    """Return the id of the stage run whose folder contains a checkpoint; None outside of any."""
    folder = Path(policy)
    if not folder.is_dir():
        return None
    stages, folder = find_home().stages.resolve(), folder.resolve()
    if not folder.is_relative_to(stages) or folder == stages:
        return None
    return folder.relative_to(stages).parts[0]
