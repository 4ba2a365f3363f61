"""The parameters that decide a stage's result, by which a finished stage run is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...envs.rewards.registry import own_term_files, own_term_programs, with_terms
from ...envs.suites.content import suite_content
from ...policies.inference.model_files import model_states
from ..config.settings import Preset


def stage_parameters(stage: str, preset: Preset) -> dict[str, Any]:
    """Return the parameters that decide a stage's result; a task file counts by its content."""
    whole = preset.model_dump()
    parameters = {"suite": preset.suite, stage: whole[stage]}
    if stage != "sft":
        parameters["max_new_tokens"] = preset.max_new_tokens
    if stage != "curate":
        parameters["interface"] = preset.interface
    if (content := suite_content(preset.suite)) is not None:
        parameters["suite_digest"] = content
    if stage == "sft":
        parameters |= model_states([preset.sft.base])
    if stage == "grpo":
        parameters |= _digests(own_term_files(preset.grpo.reward_terms))
        parameters |= _programs(preset)
    if stage == "curate":
        parameters |= model_states([preset.sft.base, preset.curate.weak, preset.curate.strong])
        parameters["held_out"] = preset.evaluate.limit
        parameters["base"] = preset.sft.base
        if any(one.startswith("openai:") for one in (preset.curate.weak, preset.curate.strong)):
            parameters["base_url"] = preset.server.base_url
    return parameters


def _programs(preset: Preset) -> dict[str, Any]:
    """Return digests of the source of reward terms in modules, which have no file of their own."""
    references = preset.grpo.reward_terms
    if all(reference.rpartition(":")[0].endswith(".py") for reference in references):
        return {}
    programs = own_term_programs(with_terms(preset.grpo.reward, references))
    digests = {
        name: hashlib.sha256(text.encode()).hexdigest() for name, (_, text) in programs.items()
    }
    return {"own_terms": digests}


def _digests(files: Iterable[Path]) -> dict[str, str]:
    """Return digests of files that a result depends on."""
    return {
        f"digest of {path}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }
