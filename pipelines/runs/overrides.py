"""Overrides of a run request: refused where nothing reads them, joined to the recorded ones.

The suite among them is resolved to a name or an absolute path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ...envs import load_suite
from ..config.presets import flat_overrides, merged_overrides
from ..config.registry import earlier_stages, stage_names
from ..config.settings import Preset, preset_model
from ..config.yaml_file import SettingsError
from ..store.lineage import StageRun
from .runner import StageError
from .stage_parameters import sections_read

if TYPE_CHECKING:
    from .requests import RunRequest
    from .session import RunSession

OVERRIDES = "overrides"
"""In a pipeline run's outputs: values set over its preset, by their place (``grpo.steps``)."""


def joined_overrides(
    session: RunSession, preset: Preset, run_request: RunRequest, source: StageRun | None
) -> dict[str, Any]:
    """Return the overrides of the source run and those of a request over them, by field.

    The recorded ones are left out where another preset is asked for, and each where an option of
    the request says the same.

    Args:
        session: Session with the store.
        preset: The preset that they go over.
        run_request: The request, its overrides by field.
        source: The source run; None without one.

    Raises:
        SettingsError: A recorded one belongs to a stage that is not installed any more.
    """
    new = run_request.overrides
    if source is None or run_request.preset:
        return dict(new)
    options = {"suite": run_request.suite, "sandbox.backend": run_request.sandbox}
    recorded = dict(source.outputs.get(OVERRIDES, {}))
    for key in recorded:
        section = key.partition(".")[0]
        if section not in type(preset).model_fields:
            note = _package_note(session, section)
            raise SettingsError(
                f"{source.id} was begun with --set {key}={recorded[key]}, and no installed stage "
                f"has the section {section!r}{note}: install its package again, or name a preset "
                f"(--preset {source.preset}), which drops what was set"
            )
    kept = flat_overrides(preset, recorded)
    kept = {key: value for key, value in kept.items() if options.get(key) is None}
    return merged_overrides(preset, kept, new)


def _package_note(session: RunSession, stage: str) -> str:
    """Return the package of a stage's newest run, in parentheses; empty where it is unknown."""
    for run in session.store.lineage.find(stage=stage):
        if package := dict(run.parameters.get("stage", {})).get("package"):
            return f" (of {package})"
    return ""


def with_flat_overrides(run_request: RunRequest) -> RunRequest:
    """Return a request with its overrides by field.

    Raises:
        SettingsError: An override is wrong, or an option of the request says the same.
    """
    overrides = flat_overrides(preset_model()(), run_request.overrides)
    for key, value in (("suite", run_request.suite), ("sandbox.backend", run_request.sandbox)):
        if value is not None and key in overrides:
            option = key.removesuffix(".backend")
            raise SettingsError(f"--set {key}: --{option} is given too: keep one of them")
    return replace(run_request, overrides=overrides)


def refuse_unread(overrides: Mapping[str, Any], preset: Preset, stage: str | None) -> None:
    """Refuse overrides that nothing would read.

    One stage may be given values of its own and of stages that read it, for which they are
    recorded; the whole pipeline those of any stage.

    Args:
        overrides: Overrides by field.
        preset: The preset with them.
        stage: The only stage to run; None for all stages.

    Raises:
        SettingsError: There is such an override.
    """
    earlier = earlier_stages(stage) if stage else ()
    names = stage_names() if stage is None else (stage,)
    read = {section for name in names for section in sections_read(name, preset)}
    if stage is not None:
        read |= {name for name in stage_names() if stage in earlier_stages(name)}
    for key in overrides:
        section = key.partition(".")[0]
        if section in earlier:
            raise SettingsError(
                f"--set {key}: {stage} takes a finished {section} as it is: rerun {section} with "
                "it, or leave it out"
            )
        if section == "suite" and earlier:
            raise SettingsError(f"--set {key}: {stage} takes the tasks of the curation as they are")
        if section not in read:
            raise SettingsError(f"--set {key}: {_unread(section, stage)}")


def _unread(section: str, stage: str | None) -> str:
    who = f"{stage} does not read" if stage else "no stage reads"
    if section != "server":
        return f"{who} {section}: leave it out"
    return f"{who} it, having no policy openai:MODEL: name one (curate.weak), or leave it out"


def with_made(session: RunSession, preset: Preset, inherited: Mapping[str, str]) -> Preset:
    """Return a preset with the settings that inherited stage runs were made with, as the record."""
    changes: dict[str, Any] = {}
    for stage, run_id in inherited.items():
        section = getattr(preset, stage, None)
        made = session.store.lineage.get(run_id).parameters.get(stage)
        if section is None or made is None:
            continue
        with contextlib.suppress(ValidationError):  # of a version with other settings
            changes[stage] = type(section).model_validate(made)
    return preset.model_copy(update=changes)


def resolve_suite(name: str) -> str:
    """Return a suite's name, or a file's absolute path, after checking that it can be loaded.

    Raises:
        StageError: There is no such file.
        SuiteError: There is no such suite, or a line of the file is not a task.
    """
    if name.endswith((".jsonl", ".py")):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise StageError(f"there is no task file {path}")
        name = str(path)
    load_suite(name, split="test")
    return name
