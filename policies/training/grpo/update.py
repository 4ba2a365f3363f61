"""One weight update from scored groups: rows, token weights, clipped loss, optional KL and teacher.

The ratio of the clipped loss is π_new / π_old, both of them the trainer's; what separates π_old
from the engine that sampled the tokens is corrected by weights (`mismatch`). All log-probabilities
are those of the distribution that tokens are sampled from, at its temperature and without the ids
that are never sampled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ....envs.rewards.terms import is_scored
from ....envs.types import Tokens, Trajectory
from ...models.token_model import Padded, PicturedIds, TokenModel
from ...seeds import derive_seed
from ..batches import micro_shares, pad_flags
from ..distributed.processes import World
from ..trained_model import TrainedModel
from .advantages import token_advantages
from .companion_models import Reference
from .config import GRPOConfig
from .distillation.term import Divergence, distillation_advantages
from .groups import Group
from .loss import clip_covariances, kl_estimate, policy_losses, token_weights
from .mismatch import (
    UNKNOWN,
    MismatchFigures,
    figures_by_age,
    importance_weights,
    is_far_off_policy,
)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A training trajectory.

    Attributes:
        source: Token ids and images.
        completion_mask: Which ids the policy wrote, ``(length,)``.
        drawn: Log-probabilities of the own ids in the engine that sampled them, ``(own,)``.
        advantages: Advantages of the own ids, ``(own,)``.
        weight: Weight of each own id in the loss of the batch.
        behind: How many steps the weights that each own id was sampled from were behind, ``(own,)``
            integers; `UNKNOWN` where the engine names no step.
        teacher: Log-probabilities of the own ids under a teacher, ``(own,)``; None where none
            scored them.
    """

    source: PicturedIds
    completion_mask: tuple[bool, ...]
    drawn: Tensor
    advantages: Tensor
    weight: float
    behind: Tensor
    teacher: Tensor | None = None


@dataclass(slots=True)
class UpdateFigures:
    """Figures of one update.

    Attributes:
        loss: Loss of the batch.
        tokens: Number of own tokens in the loss.
        clipped: Number of those tokens whose ratio is bounded.
        kl: Sum over the tokens of the divergence from the reference; 0.0 without a reference.
        moved: Sum over the tokens of the divergence from the weights before the first update.
        masked: Number of tokens that the off-policy mask left out.
        mismatch: Figures of the mismatch between engine and trainer, by how many steps the weights
            of the engine were behind.
        divergence: Divergence from the teacher before the first update.
    """

    loss: float = 0.0
    tokens: int = 0
    clipped: int = 0
    kl: float = 0.0
    moved: float = 0.0
    masked: int = 0
    mismatch: Mapping[int, MismatchFigures] = field(default_factory=dict[int, MismatchFigures])
    divergence: Divergence = field(default_factory=Divergence)

    def joined(self, other: UpdateFigures) -> UpdateFigures:
        """Return the combined figures of both parts."""
        nothing = MismatchFigures()
        return UpdateFigures(
            self.loss + other.loss,
            self.tokens + other.tokens,
            self.clipped + other.clipped,
            self.kl + other.kl,
            self.moved + other.moved,
            self.masked + other.masked,
            {
                age: self.mismatch.get(age, nothing).joined(other.mismatch.get(age, nothing))
                for age in {**self.mismatch, **other.mismatch}
            },
            self.divergence.joined(other.divergence),
        )


def make_rows(
    groups: Sequence[Group],
    config: GRPOConfig,
    *,
    behind: Callable[[str], int] | None = None,
    step: int = 0,
) -> list[Row]:
    """Build the rows of an update.

    Trajectories that were not scored are left out. Those whose advantages are all 0 count in the
    weights but have no row: their gradient is exactly 0 (unless there is a KL term or a teacher).

    Args:
        groups: Scored groups.
        config: Settings.
        behind: Returns how many steps a version of the weights is behind, or `UNKNOWN`; None where
            all tokens were sampled from the weights of this step.
        step: Number of steps done, for the seed of `clip_covariances`.
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
        of_tokens = token_advantages(advantage, turns, _tokens(one).turn_of) * config.reward_weight
        rows.append(_row(one, of_tokens, weight, _ages(_tokens(one), behind)))
    if config.clip_cov_ratio > 0.0 and rows:
        seed = derive_seed("clip_cov", config.seed, step)
        drawn = torch.cat([row.drawn for row in rows])
        given = torch.cat([row.advantages for row in rows])
        kept = clip_covariances(drawn, given, config, seed=seed).split(lengths)
        rows = [replace(row, advantages=own) for row, own in zip(rows, kept, strict=True)]
    has_other_terms = config.beta > 0 or config.teacher is not None
    return [
        row
        for row in rows
        if len(row.advantages) and (has_other_terms or bool(row.advantages.any()))
    ]


def backward(
    model: TokenModel,
    rows: Sequence[Row],
    config: GRPOConfig,
    *,
    reference: Reference | None,
    trained: TrainedModel | None = None,
    old: Mapping[int, Tensor] | None = None,
) -> UpdateFigures:
    """Accumulate the gradient of the batch's loss, micro-batch by micro-batch.

    The sum over micro-batches is the loss of the whole batch, however it is cut. With ``trained``,
    only this process's share is computed; the returned figures are those of all processes.

    Args:
        model: Model in training.
        rows: Rows of the batch.
        config: Settings.
        reference: Model of the KL term; None for no term.
        trained: The model with its share of the work; None to train it in this process alone.
        old: Scores before the first update (`score_rows`); None for the current ones, where this
            is the first update and nothing is random in training.
    """
    figures = UpdateFigures()
    learner = trained or _Alone(model)
    for micro, counts in _shares(rows, config, trained):
        part = UpdateFigures()
        known = None if old is None else torch.cat([old[index] for index in micro])
        _add(learner, [rows[index] for index in micro], config, reference, part, counts, known)
        if counts:
            figures = figures.joined(part)
    world = World() if trained is None else trained.world
    every = world.gather(lambda: figures)
    return functools.reduce(UpdateFigures.joined, every)


@torch.no_grad()
def score_rows(rows: Sequence[Row], config: GRPOConfig, trained: TrainedModel) -> dict[int, Tensor]:
    """Score this process's share of rows with the current weights, without dropout.

    Returns:
        Log-probabilities of the own ids, ``(own,)`` for each index of a row.
    """
    found: dict[int, Tensor] = {}
    trained.model.model.eval()
    for micro, _ in _shares(rows, config, trained):
        batch, own = _batch(trained.model, [rows[index] for index in micro])
        scores = trained.score(batch, own, temperature=config.temperature).split(
            [len(rows[index].drawn) for index in micro]
        )
        found |= dict(zip(micro, scores, strict=True))
    return found


def _shares(
    rows: Sequence[Row], config: GRPOConfig, trained: TrainedModel | None
) -> list[tuple[list[int], float]]:
    """Return this process's micro-batches, which depend on the rows' lengths alone."""
    return micro_shares(
        [len(row.completion_mask) for row in rows],
        max_tokens=config.max_tokens_per_micro_batch,
        world=World() if trained is None else trained.world,
        is_even=trained is not None and trained.is_sharded,
    )


@dataclass(frozen=True, slots=True)
class _Alone:
    """A model that is trained in a single process."""

    model: TokenModel
    gradient_scale: float = 1.0

    def score(self, batch: Padded, chosen: Tensor, *, temperature: float) -> Tensor:
        return self.model.log_probabilities(batch, chosen, temperature=temperature)


def _add(  # noqa: PLR0913 - one micro-batch of `backward`
    learner: TrainedModel | _Alone,
    rows: Sequence[Row],
    config: GRPOConfig,
    reference: Reference | None,
    figures: UpdateFigures,
    counts: float,
    known: Tensor | None,
) -> None:
    batch, own = _batch(learner.model, rows)
    # First, while no activations of the policy are in memory.
    initial = None if reference is None else _reference_scores(reference, batch, own, config)
    new = learner.score(batch, own, temperature=config.temperature)
    old = new.detach() if known is None else known.to(new)
    advantages = torch.cat([row.advantages for row in rows]).to(new)
    if config.teacher is not None:
        advantages = advantages + _distillation(rows, old, config, figures)
    weights = torch.cat([torch.full_like(row.drawn, row.weight) for row in rows]).to(new)
    policy = policy_losses(new, old, advantages, [len(row.drawn) for row in rows], config)
    losses = policy.values * _corrections(rows, new.detach(), old, advantages, config, figures)
    if initial is not None:
        divergence = kl_estimate(new, initial)
        figures.kl += float(divergence.detach().sum())
        if config.use_bias_correction_kl:
            divergence = divergence * torch.exp(new - old)
        losses = losses + config.beta * divergence
    loss = (weights * losses).sum() * counts
    (loss * learner.gradient_scale).backward()
    with torch.no_grad():
        figures.loss += float(loss)
        figures.tokens += len(new)
        figures.clipped += int(policy.is_clipped.sum())
        figures.moved += float(kl_estimate(new, old).sum())


def _distillation(
    rows: Sequence[Row], old: Tensor, config: GRPOConfig, figures: UpdateFigures
) -> Tensor:
    """Return what the teacher adds to the advantage of each token, ``(tokens,)``."""
    unknown = torch.nan
    scores = [torch.full_like(r.drawn, unknown) if r.teacher is None else r.teacher for r in rows]
    added, figures.divergence = distillation_advantages(
        old, torch.cat(scores).to(old), weight=config.distillation_weight
    )
    return added


def _corrections(
    rows: Sequence[Row],
    new: Tensor,
    old: Tensor,
    advantages: Tensor,
    config: GRPOConfig,
    figures: UpdateFigures,
) -> Tensor:
    """Return the factor of each token's loss that corrects the mismatch, ``(tokens,)``."""
    drawn = torch.cat([row.drawn for row in rows]).to(new)
    lengths = [len(row.drawn) for row in rows]
    correction, differences = config.correction, old - drawn
    weights = importance_weights(differences, lengths, correction)
    figures.mismatch = figures_by_age(
        differences, weights, torch.cat([row.behind for row in rows]).to(new.device)
    )
    factors = weights.values if correction.is_applied else torch.ones_like(new)
    threshold = correction.off_policy_mask_threshold
    if threshold is not None:
        is_masked = is_far_off_policy(drawn - new, advantages, lengths, threshold)
        figures.masked += int(is_masked.sum())
        factors = factors.masked_fill(is_masked, 0.0)
    return factors


def _batch(model: TokenModel, rows: Sequence[Row]) -> tuple[Padded, Tensor]:
    """Return rows as a batch, and which of its ids are the policy's, ``(rows, length)``."""
    batch = model.pad([row.source for row in rows])
    return batch, pad_flags([row.completion_mask for row in rows], length=batch.ids.shape[1])


@torch.no_grad()
def _reference_scores(
    reference: Reference, batch: Padded, own: Tensor, config: GRPOConfig
) -> Tensor:
    return reference.log_probabilities(batch, own, temperature=config.temperature)


def _ages(tokens: Tokens, behind: Callable[[str], int] | None) -> Tensor:
    """Return how many steps the weights of each token were behind, ``(length,)``."""
    ages = torch.zeros(len(tokens.ids), dtype=torch.long)
    if behind is not None:
        ages.fill_(UNKNOWN)
        for span in tokens.weight_versions:
            ages[span.start : span.end] = behind(span.version)
    return ages


def _row(trajectory: Trajectory, advantages: Tensor, weight: float, ages: Tensor) -> Row:
    tokens = _tokens(trajectory)
    own = torch.tensor(tokens.mask)
    images = [image for message in trajectory.conversation() for image in message.images]
    return Row(
        source=PicturedIds(tokens.ids, images[: tokens.images]),
        completion_mask=tokens.mask,
        drawn=torch.tensor(tokens.log_probabilities)[own],
        advantages=advantages[own],
        weight=weight,
        behind=ages[own],
    )


def _own_count(trajectory: Trajectory) -> int:
    return sum(_tokens(trajectory).mask)


def _tokens(trajectory: Trajectory) -> Tokens:
    if trajectory.tokens is None:
        raise ValueError(f"the trajectory of {trajectory.task_id} has no tokens to learn from")
    return trajectory.tokens
