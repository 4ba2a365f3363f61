"""Inputs of custom algorithms: the tokens that a policy generated, scored with gradient.

Run episodes with `Policy.reply` (or `rollout`), then score the exact generated ids here with the
model's current weights. The rest (baselines, clipping, critics) is up to the algorithm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..interface import Conversation
from ..models.token_model import PicturedIds, TokenModel, sampling_logits
from .batches import pad_flags


@dataclass(frozen=True, slots=True, eq=False)
class OwnTokens:
    """Scores of the tokens that a policy generated in one conversation, under its current weights.

    Attributes:
        log_probabilities: Log-probability of each token given all before it, in the distribution
            that it was sampled from, ``(own,)`` float32, with gradient.
        states: Hidden state from which each token was drawn, for a value head, ``(own, width)``,
            with gradient.
        turns: Turn of each token, ``(own,)``.
    """

    log_probabilities: Tensor
    states: Tensor
    turns: Tensor


def score_own_tokens(
    model: TokenModel, conversations: Sequence[Conversation], *, temperature: float = 1.0
) -> list[OwnTokens]:
    """Score a model's own tokens, all conversations in one forward pass.

    Args:
        model: Model that generated them.
        conversations: Conversations with tokens.
        temperature: Temperature at which they were sampled.

    Raises:
        ValueError: A conversation has no tokens: its policy records none, or has not replied.
    """
    sources = [_source(one) for one in conversations]
    written = [one.tokens for one in conversations if one.tokens is not None]
    batch = model.pad(sources)
    completion_mask = pad_flags([tokens.mask for tokens in written], length=batch.ids.shape[1])
    chosen = completion_mask[:, 1:].to(model.device)
    states = model.hidden(batch)[:, :-1][chosen]
    targets = batch.ids[:, 1:].to(model.device)[chosen]
    logits = sampling_logits(model.logits(states), model.allowed(), temperature)
    scores = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    counts = [sum(tokens.mask) for tokens in written]
    turns = [torch.tensor([turn for turn in one.turn_of if turn >= 0]) for one in written]
    parts = zip(scores.split(counts), states.split(counts), turns, strict=True)
    return [OwnTokens(*part) for part in parts]


def _source(conversation: Conversation) -> PicturedIds:
    if conversation.tokens is None:
        raise ValueError("a conversation without tokens: only local models record them")
    images = [image for message in conversation.messages for image in message.images]
    return PicturedIds(conversation.tokens.ids, images[: conversation.tokens.images])
