"""The cold start: supervised learning on the curated demonstrations, from the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...envs.suites.nano import FAMILIES
from ...envs.types import Message
from ...policies.interface import Demonstration
from ..store import StageRun, Store
from .context import StageContext, StageInterrupted, StageResult
from .runner import StageError
from .training import follow

NANO = "nano"


def run_sft(context: StageContext) -> StageResult:
    """Train the base model on the demonstrations of the curation that this run names."""
    from ...policies import SFTConfig, TrainingInterrupted, train_sft
    from ...policies.model_folder import read_notes

    settings = context.preset.sft
    demonstrations = load_demonstrations(context.store, context.input("curate"))
    base = _base_model(context, demonstrations)
    prompt = read_notes(base).system_prompt if Path(base).is_dir() else None
    shown = [_with_system_prompt(demonstration, prompt) for demonstration in demonstrations]
    config = SFTConfig(**settings.model_dump(exclude={"base", "nano"}), seed=context.seed)
    with context.progress.bar("sft", settings.steps) as bar:
        try:
            model = train_sft(
                base,
                shown,
                config,
                folder=context.folder,
                on_step=follow(context, bar, shown=("loss", "lr")),
                should_stop=context.stop.is_requested,
            )
        except TrainingInterrupted as stop:
            raise StageInterrupted(str(stop)) from stop
    context.tracker.model(context.run.id, model, name="sft", suite=context.preset.suite)
    return StageResult({"model": str(model), "demonstrations": len(shown)})


def load_demonstrations(store: Store, curation: StageRun) -> list[Demonstration]:
    """Give what the policy is to learn: a right trajectory of each kept task.

    Raises:
        StageError: Nothing was kept.
    """
    kept = {row.task_key: row for row in store.curation(curation.id) if row.is_kept}
    chosen = chosen_demonstrations(store, curation)
    if not chosen:
        raise StageError(
            f"{curation.id} kept no task that it could show: raise curate.candidates in "
            "flows.yaml, or name a strong policy that solves these tasks (curate.strong)"
        )
    tasks = store.tasks(list(chosen))
    trajectories = store.trajectories(list(chosen.values()))
    return [
        Demonstration(
            task=tasks[key],
            messages=tuple(trajectory.conversation()),
            source=trajectory.policy_id,
            tags=(str(kept[key].demonstration),),
        )
        for key, trajectory in zip(chosen, trajectories, strict=True)
    ]


def chosen_demonstrations(store: Store, curation: StageRun) -> dict[str, int]:
    """Give the trajectory's id that shows each kept task, by the task's key."""
    kept = {row.task_key: row for row in store.curation(curation.id) if row.is_kept}
    chosen: dict[str, int] = {}
    for episode in store.episodes(curation.id):
        row = kept.get(episode.task_key)
        wanted = "strong" if row is not None and row.demonstration == "tools" else "direct"
        if row is not None and episode.phase == wanted and episode.accuracy == 1.0:
            chosen.setdefault(episode.task_key, episode.id)
    return chosen


def _base_model(context: StageContext, demonstrations: Sequence[Demonstration]) -> str:
    """Give the model to start from; the nano model is built once, from random weights."""
    from transformers.utils import logging as transformers_logging

    from ...policies.nano import NanoConfig, build_nano

    if context.preset.sft.base != NANO:
        return context.preset.sft.base
    folder = context.folder / "base"
    if not folder.exists():
        transformers_logging.disable_progress_bar()  # its bars would tear ours
        fresh = context.folder / "base.new"
        config = NanoConfig(**context.preset.sft.nano.model_dump(), seed=context.seed)
        corpus = (m.text for d in demonstrations for m in d.messages)
        build_nano(fresh, corpus, config, families=taught_families())
        fresh.replace(folder)
    return str(folder)


def taught_families() -> Mapping[str, Sequence[str]]:
    """Give the questions of the embedded suite, by family, which ``codedance ask`` shows."""
    return {name: family.phrasings for name, family in FAMILIES.items()}


def _with_system_prompt(demonstration: Demonstration, prompt: str | None) -> Demonstration:
    """Put the model's own system message first: the one it will be asked with."""
    from ...envs.protocol import system_prompt

    text = system_prompt("code") if prompt is None else prompt
    rest = tuple(m for m in demonstration.messages if m.role != "system")
    head = (Message("system", (text,)),) if text else ()
    return Demonstration(
        demonstration.task, (*head, *rest), demonstration.source, demonstration.tags
    )
