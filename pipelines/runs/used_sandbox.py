"""In which sandbox a policy's code runs: the recorded one of the run that trained it, no weaker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..config.home import find_home
from ..config.settings import Preset, SandboxSettings

if TYPE_CHECKING:
    from ..store.lineage import Lineage, StageRun

_WEAKEST_FIRST = ("unsafe-subprocess", "local", "docker")


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
        SettingsError: flows.yaml is wrong; or no pipeline run records a checkpoint's sandbox any
            more, and no backend is asked for: a default may be weaker than the recorded one was.
        StoreError: The store, which knows a checkpoint's run, cannot be read.
    """
    from ..config.flows_file import load_flows_file
    from ..config.yaml_file import SettingsError

    stage_run = _stage_run_of(policy)
    maker = None if stage_run is None else _maker(stage_run)
    if maker is not None:
        settings = Preset(sandbox=recorded_sandbox(maker))
    elif stage_run is not None and backend is None:
        raise SettingsError(
            f"the sandbox of {policy} is not known: no pipeline run in the store made or reads "
            f"{stage_run} (pruned, or of another store?). Choose one with --sandbox docker or "
            "--sandbox local; or copy the folder elsewhere, to use the sandbox of flows.yaml"
        )
    else:
        settings = preset or load_flows_file().presets.get("quick", Preset())
    return (settings if backend is None else settings.with_backend(backend)).sandbox


def _maker(stage_run: str) -> StageRun | None:
    """Return the pipeline run whose recorded sandbox a stage's checkpoint is judged in.

    This is the one that made the stage. Where it was pruned, it is one that reads the stage: of
    several, the one with the strongest backend. None where no run is left that says.
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
    """Return the pipeline run that names a stage run among its outputs."""
    from ..store.lineage import PIPELINE

    return max(
        (run for run in lineage.find(stage=PIPELINE) if stage_run in run.outputs.values()),
        key=lambda run: _WEAKEST_FIRST.index(recorded_sandbox(run).backend),
        default=None,
    )


def _stage_run_of(policy: str) -> str | None:
    """Return the id of the stage run in whose folder a checkpoint lies."""
    folder = Path(policy)
    if not folder.is_dir():
        return None
    stages, folder = find_home().stages.resolve(), folder.resolve()
    if not folder.is_relative_to(stages) or folder == stages:
        return None
    return folder.relative_to(stages).parts[0]
