"""The update benchmark: ours and plain transformers on the same packed batch, with equal loss."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from codedance.pipelines.runs.machine import Machine, describe_machine, load
from codedance.policies import rollout
from codedance.policies.inference.vlm import VisionLanguagePolicy
from codedance.policies.interface import Sampling
from codedance.policies.models.model_folder import load_token_model, read_notes
from codedance.policies.models.token_model import TokenModel
from codedance.policies.training.batches import micro_batches
from codedance.policies.training.grpo.config import GRPOConfig
from codedance.policies.training.grpo.groups import Group
from codedance.policies.training.grpo.loss import clipped_loss
from codedance.policies.training.grpo.update import Row as TrainingRow
from codedance.policies.training.grpo.update import backward, make_rows
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .episodes import MAX_NEW_TOKENS, MAX_TURNS, PausingSandbox, bench_tasks
from .generators import picture_inputs, without_bars
from .rollout import model_folder
from .rounds import Result, Row, run_rounds

OURS = "ours"
PLAIN = "plain transformers, eager"
SDPA = "plain transformers, sdpa"
UPDATE = "update"
_SIDE = 2048  # side of the square matrices whose product measures the machine's speed


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """Results of one run.

    Attributes:
        machine: Machine of the run.
        threads: Number of torch threads.
        load_before: Load of the machine at the start.
        load_after: Load of the machine at the end.
        model: Folder of the model.
        tokens: Number of tokens in the batch, without padding.
        pictures: Number of images in the batch, each occurrence counted.
        losses: Loss of each contestant; all have to be equal.
        result: Seconds of an update.
        flops: Floating-point operations of our update in products, forward and backward.
        product_flops: Floating-point operations per second of a plain matrix product here.
    """

    machine: Machine
    threads: int
    load_before: float
    load_after: float
    model: str
    tokens: int
    pictures: int
    losses: dict[str, float]
    result: Result
    flops: int
    product_flops: float

    @property
    def share(self) -> float | None:
        """Speed of our update as a share of a plain matrix product's."""
        seconds = self.result.median(OURS, UPDATE)
        return self.flops / seconds / self.product_flops if seconds else None


@dataclass
class UpdateBench:
    """The benchmark, ready to run.

    Args:
        model: Folder of a trained nano model; None for the bundled one.
        rounds: Number of rounds.
        trajectories: Number of trajectories in the batch.
        seed: Random seed of the order within rounds and of all sampling.
        on_progress: Called with the name of the current measurement.
    """

    model: str | None = None
    rounds: int = 10
    trajectories: int = 64
    seed: int = 0
    on_progress: Callable[[str], None] = lambda _: None

    def run(self) -> UpdateReport:
        """Sample one batch, then train on it repeatedly, contestants taking turns."""
        load_before, source = load(), model_folder(self.model)
        self.on_progress("drawing the batch")
        config = GRPOConfig(max_new_tokens=MAX_NEW_TOKENS)
        model = load_token_model(source)
        rows = _rows(model, source, config, self.trajectories, self.seed)
        contestants = [
            OurUpdate(model, rows, config),
            PlainUpdate(PLAIN, source, model, rows, config),
            PlainUpdate(SDPA, source, model, rows, config),
        ]
        result = run_rounds(
            contestants,
            [Row(UPDATE, PLAIN)],
            rounds=self.rounds,
            seed=self.seed,
            on_progress=lambda done: self.on_progress(f"round {done} of {self.rounds}"),
        )
        with FlopCounterMode(display=False) as counter:
            contestants[0].update()
        return UpdateReport(
            machine=describe_machine(),
            threads=torch.get_num_threads(),
            load_before=load_before,
            load_after=load(),
            model=source,
            tokens=sum(len(row.completion_mask) for row in rows),
            pictures=sum(len(row.source.images) for row in rows),
            losses={each.name: each.loss for each in contestants},
            result=result,
            flops=counter.get_total_flops(),
            product_flops=product_flops(model.device),
        )


class OurUpdate:
    """Forward and backward passes of our trainer.

    Args:
        model: Model to train.
        rows: Training rows.
        config: Training configuration.
    """

    name = OURS
    stride = 1

    def __init__(self, model: TokenModel, rows: Sequence[TrainingRow], config: GRPOConfig) -> None:
        self._model, self._rows, self._config = model, rows, config
        self.loss = 0.0

    def work(self, row: str) -> Callable[[], None] | None:
        """Return the update."""
        return self.update if row == UPDATE else None

    def update(self) -> None:
        """Compute loss and gradients."""
        self.loss = backward(self._model, self._rows, self._config, reference=None).loss
        _finish(self._model.model)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class PlainUpdate:
    """The same loss by transformers as it is loaded, on the same micro-batches.

    Args:
        name: `PLAIN` or `SDPA`.
        source: Folder of the model.
        ours: Our model, whose processed tokens and images are used.
        rows: Training rows.
        config: Training configuration.
    """

    stride = 1

    def __init__(
        self,
        name: str,
        source: str,
        ours: TokenModel,
        rows: Sequence[TrainingRow],
        config: GRPOConfig,
    ) -> None:
        from transformers import AutoModelForImageTextToText

        self.name, self.loss = name, 0.0
        self._config = config
        attention = "eager" if name == PLAIN else "sdpa"
        with without_bars():
            self._model: Any = AutoModelForImageTextToText.from_pretrained(
                source, dtype="auto", attn_implementation=attention
            )
        self._model = self._model.to(ours.device)
        self._allowed = ours.allowed()
        lengths = [len(row.completion_mask) for row in rows]
        self._parts = [
            _plain_inputs(ours, [rows[index] for index in part])
            for part in micro_batches(lengths, max_tokens=config.max_tokens_per_micro_batch)
        ]

    def work(self, row: str) -> Callable[[], None] | None:
        """Return the update."""
        return self.update if row == UPDATE else None

    def update(self) -> None:
        """Compute loss and gradients."""
        self.loss = 0.0
        for inputs, own, (drawn, advantages, weights) in self._parts:
            logits = self._model(**inputs).logits[:, :-1]
            logits = logits.float().masked_fill(~self._allowed, -torch.inf)  # never sampled
            scores = logits.log_softmax(dim=-1)
            new = scores.gather(2, inputs["input_ids"][:, 1:, None])[:, :, 0][own[:, 1:]]
            losses = clipped_loss(
                new,
                new.detach(),
                advantages,
                epsilon=self._config.epsilon,
                epsilon_high=self._config.epsilon_high,
            )
            importance = torch.exp(new.detach() - drawn).clamp(
                max=self._config.vllm_importance_sampling_clip_max
            )
            loss = (weights * importance * losses).sum()
            loss.backward()
            self.loss += float(loss.detach())
        _finish(self._model)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def product_flops(device: torch.device) -> float:
    """Return the floating-point operations per second of a plain float32 matrix product."""
    one = torch.randn(_SIDE, _SIDE, device=device)
    times: list[float] = []
    for _ in range(5):
        begun = time.perf_counter()
        product = one @ one
        float(product[0, 0])  # waits for an accelerator too
        times.append(time.perf_counter() - begun)
    return 2 * _SIDE**3 / statistics.median(times)


def _rows(
    model: TokenModel, source: str, config: GRPOConfig, count: int, seed: int
) -> list[TrainingRow]:
    """Sample trajectories and set an advantage for each, so that all are trained on."""
    policy = VisionLanguagePolicy(model, policy_id="bench", notes=read_notes(source))
    found = rollout(
        policy,
        bench_tasks(max(count // 8, 1)),
        samples=min(count, 8),
        seed=seed,
        sandbox=PausingSandbox(0.0),
        sampling=Sampling(max_new_tokens=MAX_NEW_TOKENS),
        max_turns=MAX_TURNS,
        evidence=False,
    )
    advantages = tuple(1.0 if index % 2 else -1.0 for index in range(len(found)))
    turns = tuple(tuple(0.0 for _ in one.turns) for one in found)
    return make_rows([Group(tuple(found), advantages, turns)], config)


def _plain_inputs(
    ours: TokenModel, rows: Sequence[TrainingRow]
) -> tuple[dict[str, Tensor], Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return the inputs of a transformers model for rows, padded on the right."""
    longest = max(len(row.completion_mask) for row in rows)
    ids = torch.full((len(rows), longest), ours.chat.end_id)
    mask, own = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for index, row in enumerate(rows):
        length = len(row.completion_mask)
        ids[index, :length] = torch.tensor(row.source.ids)
        mask[index, :length] = 1
        own[index, :length] = torch.tensor(row.completion_mask)
    inputs = {
        "input_ids": ids.to(ours.device),
        "attention_mask": mask.to(ours.device),
        "mm_token_type_ids": (ids == ours.chat.image_id).int().to(ours.device),
        **picture_inputs(ours, [image for row in rows for image in row.source.images]),
    }
    numbers = (
        torch.cat([row.drawn for row in rows]),
        torch.cat([row.advantages for row in rows]),
        torch.cat([torch.full_like(row.drawn, row.weight) for row in rows]),
    )
    drawn, advantages, weights = (one.to(ours.device) for one in numbers)
    return inputs, own.to(ours.device), (drawn, advantages, weights)


def _finish(model: Any) -> None:  # noqa: ANN401 - any torch module
    """Clear the gradients, and wait for an accelerator's work."""
    model.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
