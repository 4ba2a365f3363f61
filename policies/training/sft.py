"""Supervised fine-tuning: next-token loss on the assistant's texts, given text and images.

A step's loss is the mean over all own tokens of its batch, those of an answer weighted by
`SFTConfig.answer_weight`; it is the same however the batch is cut into micro-batches. The batch of
a step is a function of seed and step, so a run that is stopped and resumed ends with the same
weights, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..interface import Demonstration
from ..models.chat_tokens import ChatTokenizer, Encoded
from ..models.pictures import picture_digest
from ..models.token_model import PicturedIds, TokenModel
from .batches import batch_at, micro_shares, pad_flags
from .distributed.processes import join_world
from .optimiser import Optimiser, Schedule
from .run_fingerprint import run_fingerprint
from .trained_model import TrainedModel
from .training_setup import TrainingSetup
from .training_state import (
    Guard,
    TrainingInterrupted,
    end_step,
    keep_state,
    load_state,
    save_final,
)

OnStep = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class SFTConfig(TrainingSetup):
    """Settings of SFT; `TrainingSetup` holds precision, memory and adapters.

    Attributes:
        steps: Number of optimizer updates.
        batch_size: Demonstrations per update.
        learning_rate: Peak learning rate; decays as a cosine.
        warmup_steps: Steps of the linear rise at the start.
        weight_decay: Weight decay of matrices.
        max_grad_norm: Norm that gradients are clipped to.
        muon_factor: Learning rate of Muon on hidden matrices, as a multiple of ``learning_rate``;
            0.0 for AdamW alone.
        answer_weight: Loss weight of the tokens between answer tags; other tokens weigh 1.
        group_by_length: Whether a batch holds demonstrations of similar length: less padding,
            which pays off for large models; a nano model learns slower from such batches.
        packing: Whether a micro-batch is one row of whole demonstrations end to end, none of which
            attends to another: no padding at all, for batches of any lengths.
        seed: Random seed of the order of demonstrations.
        save_every: Steps between saved states.
        max_tokens_per_micro_batch: Memory bound: padded tokens per forward pass.
        max_length: Token limit of a demonstration; longer ones raise an error.
    """

    steps: int = 800
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_steps: int = 20
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    muon_factor: float = 0.0
    answer_weight: float = 1.0
    group_by_length: bool = False
    packing: bool = False
    seed: int = 0
    save_every: int = 100
    max_tokens_per_micro_batch: int = 4096
    max_length: int = 16_384

    def __post_init__(self) -> None:
        """Reject settings under which nothing could be learnt."""
        TrainingSetup.__post_init__(self)
        if self.answer_weight <= 0.0:
            raise ValueError(f"sft.answer_weight must be above 0, got {self.answer_weight}")
        for name in ("steps", "batch_size", "save_every", "max_tokens_per_micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"sft.{name} must be at least 1, got {getattr(self, name)}")


def train_sft(  # noqa: PLR0913 - data, settings, folder and callbacks; each by name
    model_folder: str | Path,
    demonstrations: Sequence[Demonstration],
    config: SFTConfig,
    *,
    folder: Path,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
    guard: Guard | None = None,
) -> Path:
    """Train a model on demonstrations; the same call resumes a run that was stopped.

    In a distributed launch (`join_world`), all processes have to call this with the same arguments;
    the first one writes and reports. A run can be resumed with another number of processes.

    Args:
        model_folder: Initial model.
        demonstrations: Training examples.
        config: Settings.
        folder: Output folder, for ``final`` (the checkpoint) and ``state`` (to resume from).
        on_step: Called after every step with the number of steps done and ``loss``, ``tokens``,
            ``lr`` and ``grad_norm``.
        should_stop: Called after every step; a true result stops the run.
        guard: Called before a file of ``folder`` is replaced; an error it raises ends the run.

    Returns:
        Folder of the trained model.

    Raises:
        ValueError: No demonstrations, one is too long, or ``folder`` holds another run's state.
        TrainingInterrupted: ``should_stop`` returned true; the state is saved.
    """
    if not demonstrations:
        raise ValueError("train_sft needs at least one demonstration, got none")
    world = join_world()
    trained = TrainedModel(model_folder, config, seed=config.seed, world=world)
    model = trained.model
    encoded = _encode(model, demonstrations, max_length=config.max_length)
    weights = [
        token_weights(model.chat, demonstration, item, answer_weight=config.answer_weight)
        for demonstration, item in zip(demonstrations, encoded, strict=True)
    ]
    fingerprint = _fingerprint(model_folder, encoded, config)
    trainer = _Trainer(trained, encoded, weights, config)
    state = folder / "state"
    done = trainer.restore(state, fingerprint)
    keep = partial(keep_state, state, fingerprint=fingerprint, world=world, guard=guard)
    for step in range(done, config.steps):
        metrics = trainer.step(step)
        is_stopping = end_step(world, step + 1, metrics, on_step, should_stop)
        if is_stopping or (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            keep(step + 1, trainer.state())
        if is_stopping and step + 1 < config.steps:
            raise TrainingInterrupted(step + 1, state)
    save_final(folder, trained.save, world, guard)
    return folder / "final"


class _Trainer:
    """One run: model, encoded demonstrations, optimiser."""

    def __init__(
        self,
        trained: TrainedModel,
        encoded: Sequence[Encoded],
        weights: Sequence[Sequence[float]],
        config: SFTConfig,
    ) -> None:
        self._trained = trained
        self._model = trained.model
        self._encoded = encoded
        self._lengths = [len(item.ids) for item in encoded]
        self._weights = weights
        self._config = config
        if config.muon_factor and trained.is_sharded:
            raise ValueError("sft.muon_factor needs whole matrices: set it to 0, or fsdp to false")
        schedule = Schedule(config.learning_rate, config.steps, config.warmup_steps)
        self._optimiser = Optimiser(
            trained.model.model,
            schedule,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            muon_factor=config.muon_factor,
        )

    def step(self, step: int) -> dict[str, float]:
        """Update the weights on the batch of one step."""
        config = self._config
        self._trained.begin_step(step)
        chosen = batch_at(
            len(self._encoded),
            batch_size=config.batch_size,
            seed=config.seed,
            step=step,
            lengths=self._lengths if config.group_by_length else None,
        )
        items = [self._encoded[index] for index in chosen]
        weights = [self._weights[index] for index in chosen]
        total = sum(map(sum, weights))
        loss = 0.0
        trained = self._trained
        shares = micro_shares(
            [len(item.ids) for item in items],
            max_tokens=config.max_tokens_per_micro_batch,
            world=trained.world,
            is_even=trained.is_sharded,
            is_packed=config.packing,
        )
        for micro, counts in shares:
            weight = torch.tensor([w for index in micro for w in weights[index] if w > 0.0])
            scores = self._scores([items[index] for index in micro])
            share = -(scores * weight.to(scores.device)).sum() * (counts / total)
            (share * trained.gradient_scale).backward()
            loss += float(share.detach())
        return {
            "loss": sum(trained.world.gather(lambda: loss)),
            "tokens": float(sum(sum(item.completion_mask) for item in items)),
            **self._optimiser.step(step, world=None if trained.is_sharded else trained.world),
        }

    def _scores(self, part: Sequence[Encoded]) -> Tensor:
        """Return the log-probabilities of the own tokens of demonstrations, one after another."""
        sequences = [PicturedIds(item.ids, item.images) for item in part]
        if not self._config.packing:
            batch = self._model.pad(sequences)
            own = pad_flags([item.completion_mask for item in part], length=batch.ids.shape[1])
            return self._trained.score(batch, own)
        row, mask = self._model.pack(sequences)
        own = torch.tensor([[flag for item in part for flag in item.completion_mask]])
        return self._trained.score(row, own, mask=mask)

    def state(self) -> dict[str, Any]:
        """Return the state for a resumed run."""
        return {"weights": self._trained.weights(), "optimiser": self._optimiser.state()}

    def restore(self, folder: Path, fingerprint: str) -> int:
        """Restore a saved state, if there is one; return the number of steps done."""
        snapshot = load_state(folder, fingerprint=fingerprint)
        if snapshot is None:
            return 0
        self._trained.restore(snapshot.values["weights"])
        self._optimiser.restore(snapshot.values["optimiser"])
        return snapshot.step


def _encode(
    model: TokenModel, demonstrations: Sequence[Demonstration], *, max_length: int
) -> list[Encoded]:
    encoded = [model.chat.encode(demonstration.messages) for demonstration in demonstrations]
    for item, demonstration in zip(encoded, demonstrations, strict=True):
        if len(item.ids) > max_length:
            raise ValueError(
                f"the demonstration of {demonstration.task.id} has {len(item.ids)} tokens, more "
                f"than sft.max_length {max_length}"
            )
        if not any(item.completion_mask):
            raise ValueError(
                f"the demonstration of {demonstration.task.id} has no assistant message"
            )
    return encoded


def token_weights(
    chat: ChatTokenizer, demonstration: Demonstration, item: Encoded, *, answer_weight: float
) -> list[float]:
    """Return each token's weight in the loss, ``(length,)``; 0 if the policy did not write it.

    Tokens from the answer's first to the end of its turn weigh ``answer_weight``, other own tokens
    1: otherwise the few tokens that depend on the image would be lost among a program's dozens of
    easy ones.
    """
    weights = [float(own) for own in item.completion_mask]
    starts = [
        i for i, own in enumerate(item.completion_mask) if own and not item.completion_mask[i - 1]
    ]
    texts = [message.text for message in demonstration.messages if message.role == "assistant"]
    for start, text in zip(starts, texts, strict=True):
        head, tag, _ = text.rpartition("<answer>")
        if not tag:
            continue
        for place in range(start + len(chat.encode_text(chat.lead + head + tag)), len(weights)):
            if not item.completion_mask[place]:
                break
            weights[place] = answer_weight
    return weights


def _fingerprint(model_folder: str | Path, encoded: Sequence[Encoded], config: SFTConfig) -> str:
    """Return the run's fingerprint (`run_fingerprint`)."""
    return run_fingerprint(model_folder, config, map(_digest, encoded))


def _digest(item: Encoded) -> bytes:
    sha = hashlib.sha256(repr((item.ids, item.completion_mask)).encode())
    for image in item.images:
        sha.update(picture_digest(image))
    return sha.digest()
