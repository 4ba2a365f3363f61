"""A node of the experiment as a stage run: parameters, inputs, and initial model."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance.pipelines.config.settings import Preset
from codedance.pipelines.runs.runner import ResolvedRun, make_request, run_among
from codedance.pipelines.runs.session import RunSession
from codedance.pipelines.runs.stage_parameters import stage_parameters
from codedance.pipelines.store.lineage import StageRun

from .costs import steps_within, training_seconds
from .plan import CURATE, Node, training
from .protocol import Arm
from .records import Records, mark, preset_name_of

JUDGED = "arm"
"""Name of the policy in an evaluation; phases are ``arm/greedy`` and ``arm/sampled``."""
NANO = "nano"


@dataclass(frozen=True, slots=True)
class Setting:
    """Settings shared by all nodes of an experiment.

    Attributes:
        preset: Name of the protocol's preset.
        base: Its parameters, before an arm changes them.
        digest: Digest of the protocol.
        folder: Folder for untrained models.
        records: Runs begun so far.
    """

    preset: str
    base: Preset
    digest: str
    folder: Path
    records: Records


def run_node(session: RunSession, setting: Setting, seed: int, node: Node) -> StageRun:
    """Run or resume a node.

    Raises:
        StageInterrupted: The user requested a stop.
    """
    preset = _preset(session, setting, seed, node)
    parameters = stage_parameters(node.stage, preset) | mark(setting.digest, node.name)
    if node.stage == "evaluate":
        model = setting.records[seed, node.needs[0]].outputs["model"]
        parameters["policies"] = {JUDGED: model}
    resolved = ResolvedRun(preset_name_of(setting.preset), preset, seed)
    request = make_request(node.stage, resolved, parameters, _inputs(setting.records, seed, node))
    begun = setting.records.get((seed, node.name))
    return run_among(session, [begun] if begun else [], request, preset, parent=None)


def _inputs(records: Records, seed: int, node: Node) -> dict[str, str]:
    """Return the input runs of a node by the names in its stage."""
    if node.arm is None:
        return {}
    if node.stage == "evaluate":
        return {"model": records[seed, node.needs[0]].id}
    inputs = {CURATE: records[seed, CURATE].id}
    if node.arm.start is not None:
        inputs["sft"] = records[seed, training(node.arm.start)].id
    return inputs


def _preset(session: RunSession, setting: Setting, seed: int, node: Node) -> Preset:
    """Return the parameters of a node's arm."""
    base, arm = setting.base, node.arm
    if arm is None:
        return base
    changes: dict[str, Any] = {"interface": arm.interface}
    if node.stage == "sft":
        changes["sft"] = base.sft.model_copy(update=_sft_changes(session, setting, seed, arm))
    if node.stage == "grpo":
        wanted = {
            "reward": arm.reward,
            "scale_rewards": arm.scale_rewards,
            "without_families": arm.without_families,
        }
        changes["grpo"] = base.grpo.model_copy(update=wanted)
    return base.model_copy(update=changes)


def _sft_changes(session: RunSession, setting: Setting, seed: int, arm: Arm) -> dict[str, Any]:
    """Return the initial model and the number of steps of an arm's supervised training."""
    changes: dict[str, Any] = {"shown_directly": arm.shown_directly, "easy_alone": arm.easy_alone}
    records, settings = setting.records, setting.base.sft
    if arm.start is not None:
        changes["base"] = records[seed, training(arm.start)].outputs["model"]
    elif settings.base == NANO:
        changes["base"] = str(_untrained(session, setting, seed))
    if arm.start is not None and arm.as_long_as is not None:
        other = records[seed, training(arm.as_long_as)]
        like = records[seed, training(arm.start)]
        seconds = training_seconds(session.home.stages / other.id)
        changes["steps"] = steps_within(seconds, like=session.home.stages / like.id)
        changes["warmup_steps"] = min(settings.warmup_steps, changes["steps"])
    return changes


def _untrained(session: RunSession, setting: Setting, seed: int) -> Path:
    """Return the untrained model shared by all interfaces, with a tokenizer of all their texts.

    It is built once per seed; other processes that need it wait meanwhile.
    """
    folder = setting.folder / f"untrained-{seed}"
    with (setting.folder / f"untrained-{seed}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not folder.is_dir():
            _build(session, setting, seed, folder)
    return folder


def _build(session: RunSession, setting: Setting, seed: int, folder: Path) -> None:
    from codedance.pipelines.stages.sft import trained_families
    from codedance.policies.models.nano import NanoConfig, build_nano
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # its bars would break ours
    corpus = _texts(session, setting.records[seed, CURATE])
    config = NanoConfig(**setting.base.sft.nano.model_dump(), seed=seed)
    fresh = folder.with_suffix(".new")
    build_nano(fresh, corpus, config, families=trained_families())
    fresh.replace(folder)


def _texts(session: RunSession, curation: StageRun) -> Iterable[str]:
    from codedance.pipelines.stages.demonstrations import load_demonstrations
    from codedance.policies.scripted.box_teacher import box_texts

    for one in load_demonstrations(session.store, curation):
        yield from (message.text for message in one.messages)
        yield from box_texts(one.task)
