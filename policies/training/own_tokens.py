"""What an algorithm of one's own learns from: the tokens that a policy wrote, scored with gradient.

Play episodes with `Policy.reply` (or `rollout`), then ask here what the model says now of the exact
ids it wrote. The rest (baselines, clipping, critics) is the algorithm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..interface import Conversation
from ..models.token_model import PicturedIds, TokenModel
from .batches import pad_flags


@dataclass(frozen=True, slots=True, eq=False)
class OwnTokens:
    """The tokens that a policy wrote in one conversation, as its model sees them now.

    Attributes:
        log_probabilities: Of each given all before it, ``(own,)`` float32, with gradient.
        states: From which each was drawn, for a value head, ``(own, width)``, with gradient.
        turns: In which turn each was written, ``(own,)``.
    """

    log_probabilities: Tensor
    states: Tensor
    turns: Tensor


def score_own_tokens(model: TokenModel, conversations: Sequence[Conversation]) -> list[OwnTokens]:
    """Return what a model says of its own tokens, all conversations in one forward pass.

    Raises:
        ValueError: A conversation has no tokens: its policy keeps none, or has not replied.
    """
    sources = [_source(one) for one in conversations]
    written = [one.tokens for one in conversations if one.tokens is not None]
    batch = model.pad(sources)
    completion_mask = pad_flags([tokens.mask for tokens in written], length=batch.ids.shape[1])
    chosen = completion_mask[:, 1:].to(model.device)
    states = model.hidden(batch)[:, :-1][chosen]
    targets = batch.ids[:, 1:].to(model.device)[chosen]
    scores = -torch.nn.functional.cross_entropy(model.logits(states), targets, reduction="none")
    counts = [sum(tokens.mask) for tokens in written]
    turns = [torch.tensor([turn for turn in one.turn_of if turn >= 0]) for one in written]
    parts = zip(scores.split(counts), states.split(counts), turns, strict=True)
    return [OwnTokens(*part) for part in parts]


def _source(conversation: Conversation) -> PicturedIds:
    if conversation.tokens is None:
        raise ValueError("a conversation without tokens: only models that run here keep them")
    images = [image for message in conversation.messages for image in message.images]
    return PicturedIds(conversation.tokens.ids, images[: conversation.tokens.images])
