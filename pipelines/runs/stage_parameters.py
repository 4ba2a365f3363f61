"""The parameters that decide a stage's result, and the parts of a preset that it reads.

By the first a finished stage run is found again; by the second an override is refused that a stage
would ignore.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ...envs.suites.content import suite_content
from ...policies.inference.endpoint import OPENAI_PREFIX
from ..config.registry import Stage, find_stage, origin
from ..config.settings import Preset


def stage_parameters(stage: str, preset: Preset) -> dict[str, Any]:
    """Return the parameters that decide a stage's result; a task file counts by its content.

    Those of the sandbox belong to them where the stage runs code: its limits and libraries decide
    what a program prints.
    """
    declared, whole = find_stage(stage), preset.model_dump(mode="json")
    names = ("suite", stage, *declared.reads)
    if opens_sandbox(declared, preset):
        names += ("sandbox",)
    parameters = {name: whole[name] for name in names if name in whole}
    if (content := suite_content(preset.suite)) is not None:
        parameters["suite_digest"] = content
    if source := origin(stage):
        parameters["stage"] = source
    if declared.decides is not None:
        parameters |= declared.decides(preset)
    return parameters


def opens_sandbox(declared: Stage, preset: Preset) -> bool:
    """Return whether a stage runs code; the cold start does so for demonstrations of ``box``."""
    return declared.runs_code or (declared.name == "sft" and preset.interface == "box")


def sections_read(stage: str, preset: Preset) -> tuple[str, ...]:
    """Return the keys of a preset that a stage reads, in the preset's order.

    ``rollout`` belongs to them where the stage runs code, which a policy writes; ``alarms`` for a
    training that does so, whose episodes they watch; ``server`` where one of the stage's own
    settings names a policy ``openai:MODEL``; ``tracking`` always.
    """
    declared = find_stage(stage)
    found = {stage, "tracking", *declared.reads}
    if not declared.inputs:
        found.add("suite")
    if opens_sandbox(declared, preset):
        found.add("sandbox")
    if declared.runs_code:
        found.add("rollout")
    if declared.exclusive and declared.runs_code:
        found.add("alarms")
    if _asks_server(getattr(preset, stage, None)):
        found.add("server")
    return tuple(name for name in type(preset).model_fields if name in found)


def _asks_server(settings: object) -> bool:
    values = settings.model_dump().values() if isinstance(settings, BaseModel) else ()
    return any(isinstance(one, str) and one.startswith(OPENAI_PREFIX) for one in values)


def file_digests(files: Iterable[Path]) -> dict[str, str]:
    """Return digests of files that a result depends on."""
    return {
        f"digest of {path}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }
