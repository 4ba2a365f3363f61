"""Reinforcement learning: GRPO with the balanced adaptive tool-call reward, from the cold start."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ...envs.rewards.registry import own_term_files, own_term_programs, with_terms
from ...envs.types import Difficulty, Task, Trajectory
from ...policies.inference.model_files import model_states
from ...policies.training.grpo.alarms import AlarmBoard, AlarmConfig, idle_terms
from ..analysis.emergence import training_emergence
from ..config.registry import stage
from ..config.server_settings import AlarmSettings
from ..config.settings import GRPOSettings, Preset
from ..config.strict_model import read_as
from ..runs.context import StageContext, StageInterrupted, StageResult
from ..runs.distributed_launch import GRPOJob, announce
from ..runs.runner import StageError
from ..runs.stage_parameters import file_digests
from ..serving.engine.policy import teacher_servers, training_engine
from ..store.lineage import StageRun
from ..store.store import Store
from .history import load_history
from .step_figures import StepFigures
from .training import check_trainings, follow, record_curated, record_figures, training_lines

PHASE = "train"
SHOWN = ("reward", "accuracy", "tool_calls/mean", "entropy")
_LARGEST_DRIFT, _LARGEST_DRIFT_BF16 = 0.05, 1.0
TRACE_EVERY = 10
"""Steps between two that are logged as traces, one group each."""


def _deciding(preset: Preset) -> dict[str, Any]:
    """Return digests of the user's own reward terms, by file or by source, and the teacher's."""
    settings = read_as(preset.grpo, GRPOSettings)
    references = settings.reward_terms
    found: dict[str, Any] = {**file_digests(own_term_files(references))}
    found |= model_states([settings.teacher] if settings.teacher else [])
    if not all(reference.rpartition(":")[0].endswith(".py") for reference in references):
        programs = own_term_programs(with_terms(settings.reward, references))
        found["own_terms"] = {
            name: hashlib.sha256(text.encode()).hexdigest() for name, (_, text) in programs.items()
        }
    return found


@stage(
    "grpo",
    inputs=("curate", "sft"),
    settings=GRPOSettings,
    exclusive=True,
    distributed=True,
    runs_code=True,
    reads=("interface", "max_new_tokens"),
    decides=_deciding,
    charts={
        "GRPO: reward": ("reward",),
        "GRPO: accuracy while sampling": ("accuracy",),
        "GRPO: reward terms": ("rewards/tool_sequence/mean", "rewards/format/mean"),
        "GRPO: tool calls per episode": ("tool_calls/mean",),
        "GRPO: execution success": ("execution_success",),
        "GRPO: entropy": ("entropy",),
        "GRPO: divergence from the teacher": ("distillation/kl",),
    },
    compared=("reward", "accuracy", "tool_calls/mean", "execution_success", "entropy"),
    results=training_lines,
)
def run_grpo(context: StageContext) -> StageResult:
    """Train the cold start's model on the curated tasks (GRPO)."""
    from ...policies.training.grpo.config import GRPOConfig
    from ...policies.training.grpo.loop import train_grpo
    from ...policies.training.training_state import TrainingInterrupted

    settings = read_as(context.preset.grpo, GRPOSettings)
    check_trainings(context.preset)
    _check_staleness(settings, context.preset)
    tasks = load_tasks(context.store, context.input("curate"), without=settings.without_families)
    start = context.input("sft").outputs["model"]
    config = GRPOConfig(
        **settings.model_dump(exclude={"without_families", "teacher"}),
        teacher=_teacher(settings),
        interface=context.preset.interface,
        seed=context.seed,
        max_new_tokens=context.preset.max_new_tokens,
    )
    history = None
    if settings.curriculum == "learnability":
        history = load_history(context, {task.id for task in tasks}, phase=PHASE)
    board = AlarmBoard(
        alarm_limits(context.preset.alarms, bf16=settings.bf16), idle_terms(config.scoring)
    )
    figures = StepFigures()
    record_curated(context)
    engine = training_engine(
        start,
        context.preset.rollout,
        config=config,
        log=context.folder / "vllm.log",
        say=context.progress.say,
        check=context.stop.check,
    )
    with engine as served, context.progress.bar("grpo", settings.steps) as bar:
        sandbox = context.preset.sandbox
        teachers = teacher_servers(context.preset.rollout)
        announce(GRPOJob(start, tasks, config, context.folder, history, sandbox, served, teachers))
        try:
            model = train_grpo(
                start,
                tasks,
                config,
                sandbox=context.sandbox(),
                folder=context.folder,
                on_step=follow(context, bar, shown=SHOWN, board=board, extra=figures),
                on_trajectories=_Recorder(context, tasks, figures),
                should_stop=context.should_stop,
                history=history,
                guard=context.check_savable,
                served=served,
                teacher_servers=teachers,
            )
        except TrainingInterrupted as stop:
            raise StageInterrupted(str(stop)) from stop
    record_figures(context)
    _log_code_usage(context)
    return StageResult({"model": str(model), "tasks": len(tasks)})


def _teacher(settings: GRPOSettings) -> str | None:
    """Return the folder or hub id of the teacher."""
    from ...policies.loading import NANO_FOLDER

    return str(NANO_FOLDER) if settings.teacher == "nano" else settings.teacher


def _check_staleness(settings: GRPOSettings, preset: Preset) -> None:
    """Refuse to train on older weights where replies and updates take turns."""
    if settings.max_staleness and preset.rollout.colocated:
        raise StageError(
            f"grpo.max_staleness {settings.max_staleness} needs servers that stay awake during "
            "updates: leave rollout.colocated (--colocated) out, or set grpo.max_staleness: 0"
        )


def alarm_limits(settings: AlarmSettings, *, bf16: bool) -> AlarmConfig:
    """Return the alarm thresholds; log-probabilities of 16-bit weights differ by tenths."""
    drift = settings.logp_drift
    if drift is None:
        drift = _LARGEST_DRIFT_BF16 if bf16 else _LARGEST_DRIFT
    others = settings.model_dump(exclude={"logp_drift"})
    return AlarmConfig(**others, logp_drift=drift)


def load_tasks(store: Store, curation: StageRun, *, without: Collection[str] = ()) -> list[Task]:
    """Return the kept tasks with the difficulty and pass rate from curation.

    Args:
        store: Store with the tasks.
        curation: Stage run of the curation.
        without: Families to leave out.

    Raises:
        StageError: No task was kept, or ``without`` leaves none.
    """
    kept = {row.task_key: row for row in store.curation(curation.id) if row.is_kept}
    if not kept:
        raise StageError(f"{curation.id} kept no task: raise curate.candidates in flows.yaml")
    tasks = [
        replace(task, difficulty=Difficulty(kept[key].band), pass_rate=kept[key].weak_rate)
        for key, task in store.tasks(list(kept)).items()
        if task.family not in without
    ]
    if not tasks:
        raise StageError(f"grpo.without_families leaves no task of {curation.id} to train on")
    return tasks


def _log_code_usage(context: StageContext) -> None:
    """Log the code usage of each step, and the counts of novel calls and compositions."""
    found = training_emergence(context.store, context.run)
    if found is None:
        return
    steps = read_as(context.preset.grpo, GRPOSettings).steps
    for technique, series in found.techniques.items():
        for step, share in series:
            context.tracker.metrics(context.run.id, int(step), {f"idioms/{technique}": share})
    uses = {"novel_calls": found.calls, "unseen_compositions": found.compositions}
    figures = {f"emergence/{n}": float(sum(u.is_novel for u in some)) for n, some in uses.items()}
    context.tracker.metrics(context.run.id, steps, figures)


class _Recorder:
    """Callback that stores each step's trajectories; a repeated step replaces the old one."""

    def __init__(self, context: StageContext, tasks: Sequence[Task], figures: StepFigures) -> None:
        self._context = context
        self._figures = figures
        self._tasks = {task.id: task for task in tasks}
        self._has_begun = False

    def __call__(self, step: int, trajectories: Sequence[Trajectory]) -> None:
        context = self._context
        self._figures.sampled(self._tasks, trajectories)
        if not self._has_begun:
            context.store.forget_steps(context.run.id, PHASE, after=step - 1)
            self._has_begun = True
        tasks = list({t.task_id: self._tasks[t.task_id] for t in trajectories}.values())
        context.store.add_trajectories(
            tasks, trajectories, stage_run=context.run.id, phase=PHASE, step=step
        )
        if step % TRACE_EVERY == 1:
            self._trace(step)

    def _trace(self, step: int) -> None:
        """Log the first group of a step as traces."""
        context = self._context
        found = [e for e in context.store.episodes(context.run.id, PHASE) if e.step == step]
        group = [e.id for e in found if e.task_key == found[0].task_key]
        context.tracker.traces(context.run.id, group, name=f"grpo step {step}")
