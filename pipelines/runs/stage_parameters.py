"""The parameters that decide a stage's result, by which a finished stage run is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...envs.suites.content import suite_content
from ..config.registry import find_stage, origin
from ..config.settings import Preset


def stage_parameters(stage: str, preset: Preset) -> dict[str, Any]:
    """Return the parameters that decide a stage's result; a task file counts by its content."""
    declared, whole = find_stage(stage), preset.model_dump()
    names = ("suite", stage, *declared.reads)
    parameters = {name: whole[name] for name in names if name in whole}
    if (content := suite_content(preset.suite)) is not None:
        parameters["suite_digest"] = content
    if source := origin(stage):
        parameters["stage"] = source
    if declared.decides is not None:
        parameters |= declared.decides(preset)
    return parameters


def file_digests(files: Iterable[Path]) -> dict[str, str]:
    """Return digests of files that a result depends on."""
    return {
        f"digest of {path}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }
