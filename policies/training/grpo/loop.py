"""Group relative policy optimisation with advantages for trajectories and for their turns.

Departures from GRPO (arXiv 2402.03300) and from the CodeDance paper (arXiv 2512.17312):

* a group's rewards are divided by a standard deviation of at least ½ (`group_advantages`);
* A_turn is standardised within the group, not over the batch, and applies where A_group is 0 too;
* the ratio's old probabilities are the trainer's, on the exact ids that were drawn, and tokens are
  weighted by how far those of the engine were from them (`mismatch`);
* trajectories that our infrastructure lost are excluded from every statistic and the loss;
* groups without advantages are replaced by other tasks, up to a bound;
* a teacher's log-probabilities can be learnt from besides the rewards, or alone (`distillation`).

A step is a function of weights, optimiser, step number and tasks drawn so far; all of that is
saved, so a run that was stopped and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ....envs.types import Task
from ....sandbox.types import Sandbox
from ...inference.vlm import VisionLanguagePolicy
from ...interface import Policy
from ...models.model_folder import read_notes
from ...models.token_model import TokenModel
from ..distributed.processes import join_world
from ..optimiser import Optimiser, Schedule
from ..run_fingerprint import run_fingerprint, task_digest
from ..trained_model import TrainedModel
from ..training_state import (
    Guard,
    TrainingInterrupted,
    end_step,
    keep_state,
    load_state,
    save_final,
)
from .asynchronous.background_engine import BackgroundEngine
from .asynchronous.groups_ahead import GroupsAhead
from .asynchronous.weight_age import steps_behind
from .companion_models import Actor, make_reference
from .config import GRPOConfig
from .distillation.served_teacher import TeacherServers
from .distillation.taught_rows import make_teacher, taught_rows
from .distillation.teacher import Teacher
from .groups import GroupSampler, OnTrajectories
from .metrics import step_metrics
from .mismatch import mismatch_metrics
from .served_rollouts import ServedRollouts, WeightFollower
from .task_order.curriculum import History
from .update import Row, backward, make_rows, score_rows

OnStep = Callable[[int, Mapping[str, float]], None]


def train_grpo(  # noqa: PLR0913 - data, settings, folder and callbacks; each by name
    model_folder: str | Path,
    tasks: Sequence[Task],
    config: GRPOConfig,
    *,
    sandbox: Sandbox,
    folder: Path,
    on_step: OnStep | None = None,
    on_trajectories: OnTrajectories | None = None,
    should_stop: Callable[[], bool] | None = None,
    history: History | None = None,
    guard: Guard | None = None,
    served: ServedRollouts | None = None,
    teacher_servers: TeacherServers | None = None,
) -> Path:
    """Train a model on tasks with GRPO; the same call resumes a run that was stopped.

    In a distributed launch (`join_world`), all processes have to call this with the same arguments,
    each with its own sandbox; the first one writes and reports.

    Args:
        model_folder: Initial model.
        tasks: Training tasks; drawn in an order that the seed decides, epoch after epoch.
        config: Settings.
        sandbox: Sandbox in which the policy's code runs.
        folder: Output folder, for ``final`` (the checkpoint) and ``state`` (to resume from).
        on_step: Called after every step with the number of steps done and the step's metrics.
        on_trajectories: Called before the update (`OnTrajectories`).
        should_stop: Called after every step; a true result stops the run.
        history: Earlier results, for ``curriculum: learnability``; a resumed run needs the same.
        guard: Called before a file of ``folder`` is replaced; an error it raises ends the run.
        served: vLLM servers that generate the replies; None to generate them in this process.
        teacher_servers: vLLM servers of ``config.teacher``; None to load it in this process.

    Returns:
        Folder of the trained model.

    Raises:
        ValueError: No tasks, another run's state in ``folder``, or a teacher with other tokens.
        TrainingInterrupted: ``should_stop`` returned true; the state is saved.
        TeacherLostError: The teacher scored no trajectory of a step; the run can be resumed.
    """
    if not tasks:
        raise ValueError("train_grpo needs at least one task, got none")
    trainer = GRPORun(model_folder, tasks, config, sandbox=sandbox, history=history, served=served)
    trainer.teacher = make_teacher(config, trainer.trained, teacher_servers)
    fingerprint = _fingerprint(model_folder, tasks, config)
    state, world = folder / "state", trainer.trained.world
    done = trainer.restore(state, fingerprint)
    keep = partial(keep_state, state, fingerprint=fingerprint, world=world, guard=guard)
    with contextlib.closing(trainer):
        for step in range(done, config.steps):
            metrics = trainer.step(step, on_trajectories if world.is_first else None)
            is_stopping = end_step(world, step + 1, metrics, on_step, should_stop)
            if is_stopping or (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                keep(step + 1, trainer.state())
            if is_stopping and step + 1 < config.steps:
                raise TrainingInterrupted(step + 1, state)
    save_final(folder, trainer.trained.save, world, guard)
    return folder / "final"


class GRPORun:
    """One run: the trained model, its group sampler and its optimiser."""

    def __init__(
        self,
        model_folder: str | Path,
        tasks: Sequence[Task],
        config: GRPOConfig,
        *,
        sandbox: Sandbox,
        history: History | None = None,
        served: ServedRollouts | None = None,
    ) -> None:
        _check_staleness(config, served)
        self._follower = None
        if served is not None:
            self._follower = WeightFollower(served, max_staleness=config.max_staleness)
        world = join_world()
        self.trained = TrainedModel(model_folder, config, seed=config.seed, world=world)
        self._actor = Actor(self.trained, is_served=served is not None)
        self.model: TokenModel = self._actor.model.model
        self._reference = (
            make_reference(self.trained, model_folder, config) if config.beta > 0 else None
        )
        self._config = config
        self.teacher: Teacher | None = None
        self._notes = read_notes(model_folder)
        self._engine = None
        if config.max_staleness and served is None:
            if self.trained.is_sharded:
                raise ValueError(
                    f"grpo.max_staleness {config.max_staleness} with sharded weights needs vLLM "
                    "servers: set rollout.engine: vllm (--engine vllm), or max_staleness: 0"
                )
            self._engine = BackgroundEngine(
                self.trained, notes=self._notes, slots=config.rollout_batch_size
            )
        self._sampler: GroupSampler | GroupsAhead
        if config.max_staleness:
            check = None if self._follower is None else self._follower.look_up_again
            self._sampler = GroupsAhead(
                tasks, config, sandbox=sandbox, history=history, world=world, on_stale=check
            )
        else:
            self._sampler = GroupSampler(
                tasks, config, sandbox=sandbox, history=history, world=world
            )
        self._optimiser = Optimiser(
            self.trained.model.model,
            Schedule(
                config.learning_rate,
                config.steps,
                config.warmup_steps,
                kind=config.lr_scheduler_type,
            ),
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
        )

    def step(self, step: int, on_trajectories: OnTrajectories | None) -> dict[str, float]:
        """Sample groups with the current weights and learn from them."""
        self._actor.begin_replies()
        kept, replaced = self._sampler.sample(self._policy(step), step)
        self._actor.end_replies()
        if self._follower is not None:
            self._follower.end_replies()
        groups = [*kept, *replaced]
        seen = [one for group in groups for one in group.trajectories]
        self.trained.world.gather(lambda: on_trajectories and on_trajectories(step + 1, seen))
        metrics = {**step_metrics(kept, replaced), **self._sampler.figures()}
        if self._follower is not None:
            metrics |= self._follower.figures()
        is_own = self._follower is None and self._engine is None
        behind = None if is_own else partial(steps_behind, step)
        rows = make_rows(kept, self._config, behind=behind, step=step)
        if self.teacher is not None:
            is_kept = self._config.beta > 0
            world = self.trained.world
            rows, lost = taught_rows(rows, self.teacher, world=world, keeps_all=is_kept)
            metrics |= lost
        metrics["rows"] = float(len(rows))
        if rows:
            metrics |= self._update(step, rows)
        return metrics

    def close(self) -> None:
        """End episodes, remove what was handed over to servers, and leave them awake."""
        self._sampler.close()
        if self._follower is not None:
            self._follower.close()

    def _policy(self, step: int) -> Policy:
        """Return the policy of a step, with the current weights."""
        if self._follower is not None:
            return self._follower.policy(self._actor.model, step, notes=self._notes)
        if self._engine is not None:
            self._engine.follow(step)
            return self._engine
        return VisionLanguagePolicy(self.model, policy_id=f"grpo/step-{step}", notes=self._notes)

    def state(self) -> dict[str, Any]:
        """Return the state for a resumed run."""
        return {
            "weights": self.trained.weights(),
            "optimiser": self._optimiser.state(),
            "sampler": self._sampler.state(),
        }

    def restore(self, folder: Path, fingerprint: str) -> int:
        """Restore a saved state, if there is one; return the number of steps done."""
        snapshot = load_state(folder, fingerprint=fingerprint)
        if snapshot is None:
            return 0
        self.trained.restore(snapshot.values["weights"])
        self._optimiser.restore(snapshot.values["optimiser"])
        self._sampler.restore(snapshot.values["sampler"])
        return snapshot.step

    def _update(self, step: int, rows: Sequence[Row]) -> dict[str, float]:
        """Apply a step's updates; return the last one's metrics, and the first one's mismatch."""
        metrics: dict[str, float] = {}
        config = self._config
        is_repeated = config.num_iterations > 1 or config.lora_dropout > 0.0
        old = score_rows(rows, config, self.trained) if is_repeated else None
        self.trained.begin_step(step)
        for iteration in range(config.num_iterations):
            figures = backward(
                self.model, rows, config, reference=self._reference, trained=self.trained, old=old
            )
            world = None if self.trained.is_sharded else self.trained.world
            metrics |= self._optimiser.step(step, world=world)
            metrics |= {
                "loss": figures.loss,
                "clip_ratio": figures.clipped / figures.tokens,
                "approx_kl": figures.moved / figures.tokens,
            }
            if config.off_policy_mask_threshold is not None:
                metrics["off_policy_masked_share"] = figures.masked / figures.tokens
            if iteration == 0:
                metrics |= mismatch_metrics(figures.mismatch) | figures.divergence.metrics()
            if self._reference is not None:
                metrics["kl"] = figures.kl / figures.tokens
        return metrics


def _check_staleness(config: GRPOConfig, served: ServedRollouts | None) -> None:
    """Refuse to train on older weights where replies and updates take turns."""
    if config.max_staleness and served is not None and served.colocated:
        raise ValueError(
            f"grpo.max_staleness {config.max_staleness} needs servers that stay awake during "
            "updates: leave rollout.colocated out, or set max_staleness: 0"
        )


def _fingerprint(model_folder: str | Path, tasks: Sequence[Task], config: GRPOConfig) -> str:
    """Return the run's fingerprint; models are loaded before, so that a hub id's files are here."""
    digests = map(task_digest, tasks)
    return run_fingerprint(
        model_folder, config, digests, scoring=config.scoring, teacher=config.teacher
    )
