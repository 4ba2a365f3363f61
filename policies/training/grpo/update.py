"""One weight update from scored groups: rows, token weights, clipped loss, optional KL."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....envs.rewards.terms import is_scored
from ....envs.types import Tokens, Trajectory
from ...models.token_model import Padded, PicturedIds, TokenModel
from ..batches import micro_shares, pad_flags
from ..distributed.processes import World
from ..trained_model import TrainedModel
from .advantages import token_advantages
from .config import GRPOConfig
from .groups import Group
from .loss import clipped_loss, is_clipped, kl_estimate, token_weights


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A training trajectory.

    Attributes:
        source: Token ids and images.
        completion_mask: Which ids the policy wrote, ``(length,)``.
        old: Log-probabilities of the own ids when they were drawn, ``(own,)``.
        advantages: Advantages of the own ids, ``(own,)``.
        weight: Weight of each own id in the loss of the batch.
    """

    source: PicturedIds
    completion_mask: tuple[bool, ...]
    old: Tensor
    advantages: Tensor
    weight: float


@dataclass(slots=True)
class UpdateFigures:
    """Figures of one update.

    Attributes:
        loss: Loss of the batch.
        tokens: Number of own tokens in the loss.
        clipped: Number of those tokens without gradient because of the clip.
        kl: Sum over the tokens of the divergence from the reference; 0.0 without a reference.
        drift: Largest difference between a log-probability now and when its token was drawn.
        moved: Sum over the tokens of the divergence from the policy that drew them.
    """

    loss: float = 0.0
    tokens: int = 0
    clipped: int = 0
    kl: float = 0.0
    drift: float = 0.0
    moved: float = 0.0

    def joined(self, other: UpdateFigures) -> UpdateFigures:
        """Return the combined figures of both parts."""
        return UpdateFigures(
            self.loss + other.loss,
            self.tokens + other.tokens,
            self.clipped + other.clipped,
            self.kl + other.kl,
            max(self.drift, other.drift),
            self.moved + other.moved,
        )


def make_rows(groups: Sequence[Group], config: GRPOConfig) -> list[Row]:
    """Build the rows of an update.

    Trajectories that were not scored are left out. Those whose advantages are all 0 count in the
    weights but have no row: their gradient is exactly 0 (unless there is a KL term).
    """
    scored = [
        (one, advantage, turns)
        for group in groups
        for one, advantage, turns in zip(
            group.trajectories, group.advantages, group.turn_advantages, strict=True
        )
        if is_scored(one) and one.tokens is not None
    ]
    lengths = [_own_count(one) for one, _, _ in scored]
    weights = token_weights(lengths, config.loss_type, budget=config.completion_budget)
    rows: list[Row] = []
    for (one, advantage, turns), weight in zip(scored, weights, strict=True):
        row = _row(one, token_advantages(advantage, turns, _tokens(one).turn_of), weight)
        if len(row.advantages) and (config.beta > 0 or bool(row.advantages.any())):
            rows.append(row)
    return rows


def backward(
    model: TokenModel,
    rows: Sequence[Row],
    config: GRPOConfig,
    *,
    reference: TokenModel | None,
    trained: TrainedModel | None = None,
) -> UpdateFigures:
    """Accumulate the gradient of the batch's loss, micro-batch by micro-batch.

    The sum over micro-batches is the loss of the whole batch, however it is cut. With ``trained``,
    only this process's share is computed; the returned figures are those of all processes.
    """
    figures = UpdateFigures()
    world = World() if trained is None else trained.world
    shares = micro_shares(
        [len(row.completion_mask) for row in rows],
        max_tokens=config.max_tokens_per_micro_batch,
        world=world,
        is_even=trained is not None and trained.is_sharded,
    )
    learner = trained or _Alone(model)
    for micro, counts in shares:
        part = UpdateFigures()
        _add(learner, [rows[index] for index in micro], config, reference, part, counts)
        if counts:
            figures = figures.joined(part)
    every = world.gather(lambda: figures)
    return functools.reduce(UpdateFigures.joined, every)


@dataclass(frozen=True, slots=True)
class _Alone:
    """A model that is trained in a single process."""

    model: TokenModel
    gradient_scale: float = 1.0

    def score(self, batch: Padded, chosen: Tensor) -> Tensor:
        return self.model.log_probabilities(batch, chosen)


def _add(
    learner: TrainedModel | _Alone,
    rows: Sequence[Row],
    config: GRPOConfig,
    reference: TokenModel | None,
    figures: UpdateFigures,
    counts: float,
) -> None:
    batch = learner.model.pad([row.source for row in rows])
    own = pad_flags([row.completion_mask for row in rows], length=batch.ids.shape[1])
    new = learner.score(batch, own)
    old = torch.cat([row.old for row in rows]).to(new)
    advantages = torch.cat([row.advantages for row in rows]).to(new)
    weights = torch.cat([torch.full_like(row.old, row.weight) for row in rows]).to(new)
    bounds = {"epsilon": config.epsilon, "epsilon_high": config.epsilon_high}
    losses = clipped_loss(new, old, advantages, **bounds)
    if reference is not None:
        divergence = kl_estimate(new, _reference_scores(reference, batch, own))
        figures.kl += float(divergence.detach().sum())
        if config.use_bias_correction_kl:
            divergence = divergence * torch.exp(new - old)
        losses = losses + config.beta * divergence
    loss = (weights * losses).sum() * counts
    (loss * learner.gradient_scale).backward()
    with torch.no_grad():
        figures.loss += float(loss)
        figures.tokens += len(new)
        figures.clipped += int(is_clipped(new, old, advantages, **bounds).sum())
        figures.moved += float(kl_estimate(new, old).sum())
        figures.drift = max(figures.drift, float((new - old).abs().max()))


@torch.no_grad()
def _reference_scores(reference: TokenModel, batch: Padded, own: Tensor) -> Tensor:
    return reference.log_probabilities(batch, own)


def _row(trajectory: Trajectory, advantages: Tensor, weight: float) -> Row:
    tokens = _tokens(trajectory)
    own = torch.tensor(tokens.mask)
    images = [image for message in trajectory.conversation() for image in message.images]
    return Row(
        source=PicturedIds(tokens.ids, images[: tokens.images]),
        completion_mask=tokens.mask,
        old=torch.tensor(tokens.log_probabilities)[own],
        advantages=advantages[own],
        weight=weight,
    )


def _own_count(trajectory: Trajectory) -> int:
    return sum(_tokens(trajectory).mask)


def _tokens(trajectory: Trajectory) -> Tokens:
    if trajectory.tokens is None:
        raise ValueError(f"the trajectory of {trajectory.task_id} has no tokens to learn from")
    return trajectory.tokens
