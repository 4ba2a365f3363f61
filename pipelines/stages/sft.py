"""The cold start: supervised learning on the curated demonstrations, from the base model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...envs.protocol import system_prompt
from ...envs.suites.nano.suite import FAMILIES
from ...envs.types import Message
from ...policies.inference.model_files import model_states
from ...policies.interface import Demonstration
from ..config.registry import stage
from ..config.settings import Preset, SFTSettings
from ..config.strict_model import read_as
from ..runs.context import StageContext, StageInterrupted, StageResult
from ..runs.distributed_launch import SFTJob, announce
from .demonstrations import shown_demonstrations
from .training import check_trainings, follow, record_curated, record_figures, training_lines

NANO = "nano"


def _deciding(preset: Preset) -> Mapping[str, object]:
    return model_states([read_as(preset.sft, SFTSettings).base])


@stage(
    "sft",
    inputs=("curate",),
    settings=SFTSettings,
    exclusive=True,
    distributed=True,
    reads=("interface",),
    decides=_deciding,
    charts={"SFT: loss": ("loss",)},
    compared=("loss", "grad_norm", "tokens_per_second"),
    results=training_lines,
)
def run_sft(context: StageContext) -> StageResult:
    """Train the base model on the curated demonstrations (cold start)."""
    from ...policies.models.model_folder import note_interface, read_notes
    from ...policies.training.sft import SFTConfig, train_sft
    from ...policies.training.training_state import TrainingInterrupted

    settings = read_as(context.preset.sft, SFTSettings)
    check_trainings(context.preset)
    demonstrations = shown_demonstrations(context)
    base = _base_model(context, demonstrations)
    prompt = read_notes(base).system_prompt if Path(base).is_dir() else None
    rules = system_prompt(context.preset.interface) if prompt is None else prompt
    shown = [_with_system_prompt(demonstration, rules) for demonstration in demonstrations]
    config = SFTConfig(
        **settings.model_dump(exclude={"base", "nano", "shown_directly", "easy_alone"}),
        seed=context.seed,
    )
    record_curated(context)
    announce(SFTJob(base, shown, config, context.folder))
    with context.progress.bar("sft", settings.steps) as bar:
        try:
            model = train_sft(
                base,
                shown,
                config,
                folder=context.folder,
                on_step=follow(context, bar, shown=("loss", "lr")),
                should_stop=context.should_stop,
                guard=context.check_savable,
            )
        except TrainingInterrupted as stop:
            raise StageInterrupted(str(stop)) from stop
    context.check_claim()
    note_interface(model, context.preset.interface)
    record_figures(context)
    return StageResult({"model": str(model), "demonstrations": len(shown)})


def _base_model(context: StageContext, demonstrations: Sequence[Demonstration]) -> str:
    """Return the base model; the nano model is built once, from random weights."""
    from transformers.utils import logging as transformers_logging

    from ...policies.models.nano import NanoConfig, build_nano

    settings = read_as(context.preset.sft, SFTSettings)
    if settings.base != NANO:
        return settings.base
    folder = context.folder / "base"
    if not folder.exists():
        transformers_logging.disable_progress_bar()  # its bars would garble ours
        fresh = context.folder / f"base.{os.uname().nodename}-{os.getpid()}.new"
        config = NanoConfig(**settings.nano.model_dump(), seed=context.seed)
        corpus = (m.text for d in demonstrations for m in d.messages)
        build_nano(fresh, corpus, config, families=trained_families())
        context.check_claim()
        fresh.replace(folder)
    return str(folder)


def trained_families() -> Mapping[str, Sequence[str]]:
    """Return the question templates of the embedded suite by family, for ``codedance ask``."""
    return {name: family.phrasings for name, family in FAMILIES.items()}


def _with_system_prompt(demonstration: Demonstration, text: str) -> Demonstration:
    """Return the demonstration with ``text`` as its system message; none if it is empty."""
    rest = tuple(m for m in demonstration.messages if m.role != "system")
    head = (Message("system", (text,)),) if text else ()
    return Demonstration(
        demonstration.task, (*head, *rest), demonstration.source, demonstration.tags
    )
