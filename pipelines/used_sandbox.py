"""In which sandbox a policy's code runs: the recorded one of the run that trained it, no weaker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .home import find_home
from .settings import Preset, SandboxSettings

if TYPE_CHECKING:
    from .store import StageRun


def recorded_sandbox(run: StageRun) -> SandboxSettings:
    """Return the sandbox that a pipeline run was begun with, all of its settings."""
    return SandboxSettings.model_validate(run.parameters.get("sandbox", {}))


def sandbox_for(
    policy: str, backend: str | None = None, preset: Preset | None = None
) -> SandboxSettings:
    """Return the sandbox to judge or show a policy in.

    Args:
        policy: Its name or folder. A checkpoint of a run is judged in that run's own sandbox.
        backend: Asked for on the command line: takes the place of the backend alone.
        preset: Whose sandbox any other policy gets; None for that of ``quick`` in flows.yaml.

    Raises:
        ValueError: There is no such backend.
        SettingsError: flows.yaml is wrong.
        StoreError: The store, which knows a checkpoint's run, cannot be read.
    """
    from .flows_file import load_flows_file

    maker = _maker(policy)
    if maker is not None:
        settings = Preset(sandbox=recorded_sandbox(maker))
    else:
        settings = preset or load_flows_file().presets.get("quick", Preset())
    return (settings if backend is None else settings.with_backend(backend)).sandbox


def _maker(policy: str) -> StageRun | None:
    """Return the pipeline run that a checkpoint's stage belongs to; None where it is no run's."""
    stage_run = _stage_run_of(policy)
    if stage_run is None:
        return None
    from .store import open_store
    from .store.lineage import PIPELINE, UnknownRunError

    with open_store(find_home()) as store:
        try:
            found = store.lineage.get(stage_run)
            parent = None if found.parent is None else store.lineage.get(found.parent)
        except UnknownRunError:  # the folder outlived its rows
            return None
    return parent if parent is not None and parent.stage == PIPELINE else None


def _stage_run_of(policy: str) -> str | None:
    """Return the id of the stage run in whose folder a checkpoint lies."""
    folder = Path(policy)
    if not folder.is_dir():
        return None
    stages, folder = find_home().stages.resolve(), folder.resolve()
    if not folder.is_relative_to(stages) or folder == stages:
        return None
    return folder.relative_to(stages).parts[0]
