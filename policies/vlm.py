"""A vision-language model as a policy: conversations in, replies out, every token id kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..envs.types import Message, Tokens
from .generation import Completion, Prompt, generate
from .interface import Conversation, Reply, Sampling
from .key_value_cache import RowStates
from .model_folder import ModelNotes
from .token_model import PicturedIds, TokenModel

if TYPE_CHECKING:
    from PIL import Image


class VisionLanguagePolicy:
    """Samples replies from a `TokenModel`.

    Args:
        model: What gives the next token.
        policy_id: A name for model and weights.
        notes: How it was taught: its system prompt, its largest picture, its families.
        batch_size: The most conversations in one forward pass.
        keeps_cache: Whether keys and values of a turn are kept until the next call, which then
            reads only what is new; costs memory.
    """

    def __init__(
        self,
        model: TokenModel,
        *,
        policy_id: str,
        notes: ModelNotes | None = None,
        batch_size: int = 128,
        keeps_cache: bool = True,
    ) -> None:
        self.model = model
        self.notes = notes or ModelNotes()
        self._id = policy_id
        self._batch_size = batch_size
        self._keeps_cache = keeps_cache
        # By the identity of the very record that the keys and values belong to.
        self._kept: dict[int, tuple[Tokens, RowStates]] = {}

    @property
    def id(self) -> str:
        """The name of model and weights."""
        return self._id

    @property
    def system_prompt(self) -> str | None:
        """What it is told first: None for the interface's own, empty for no system message."""
        return self.notes.system_prompt

    @property
    def max_pixels(self) -> int | None:
        """The largest picture it was taught on; None for the environment's own limit."""
        return self.notes.max_pixels

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Write the next turn of each conversation and append its ids to `Conversation.tokens`."""
        was_training = self.model.model.training
        self.model.model.eval()
        kept: dict[int, tuple[Tokens, RowStates]] = {}
        try:
            replies: list[Reply] = []
            for start in range(0, len(conversations), self._batch_size):
                part = conversations[start : start + self._batch_size]
                replies += self._reply(part, sampling, kept)
            return replies
        finally:
            self._kept = kept
            self.model.model.train(was_training)

    def full_logprobs(self, ids: Sequence[int], images: Sequence[Image.Image]) -> tuple[float, ...]:
        """Give each id's log-probability by one forward pass; 0.0 for the first, ``(length,)``."""
        with torch.inference_mode():
            batch = self.model.pad([PicturedIds(ids, images)])
            chosen = torch.ones_like(batch.ids, dtype=torch.bool)
            scores = self.model.log_probabilities(batch, chosen)
        return (0.0, *scores.tolist())

    def _reply(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        kept: dict[int, tuple[Tokens, RowStates]],
    ) -> list[Reply]:
        prompts = [self._prompt(conversation, sampling) for conversation in conversations]
        writing = [index for index, prompt in enumerate(prompts) if prompt.limit > 0]
        completions = [Completion() for _ in prompts]
        if writing:
            made = generate(self.model, [prompts[index] for index in writing], sampling)
            for index, completion in zip(writing, made, strict=True):
                completions[index] = completion
        replies: list[Reply] = []
        for conversation, prompt, completion in zip(
            conversations, prompts, completions, strict=True
        ):
            tokens = conversation.tokens = _extend(conversation, prompt, completion)
            if self._keeps_cache and completion.states is not None:
                kept[id(tokens)] = tokens, completion.states
            replies.append(
                Reply(
                    text=self.model.chat.decode(completion.ids),
                    is_cut=not completion.is_finished,
                    new_tokens=len(completion.ids),
                )
            )
        return replies

    def _prompt(self, conversation: Conversation, sampling: Sampling) -> Prompt:
        chat = self.model.chat
        if conversation.tokens is None:
            ids = tuple(chat.open_prompt(conversation.messages))
        else:
            ids = conversation.tokens.ids
            if ids[-1] != chat.end_id:  # a cut turn that is nevertheless answered
                ids += (chat.end_id,)
            ids += tuple(chat.after_reply(_since_last_reply(conversation.messages)))
        images = [image for message in conversation.messages for image in message.images]
        limit = min(sampling.max_new_tokens, sampling.max_tokens - len(ids))
        past = self._kept.get(id(conversation.tokens))
        is_same = past is not None and past[0] is conversation.tokens
        return Prompt(
            ids,
            images,
            conversation.seed,
            conversation.turn,
            max(limit, 0),
            past=past[1] if past is not None and is_same else None,
        )


def _since_last_reply(messages: Sequence[Message]) -> Sequence[Message]:
    """Give the messages after the assistant's last one."""
    last = max(i for i, message in enumerate(messages) if message.role == "assistant")
    return messages[last + 1 :]


def _extend(conversation: Conversation, prompt: Prompt, completion: Completion) -> Tokens:
    """Append what was asked and what was written to the record of exact ids."""
    before = conversation.tokens or Tokens((), (), ())
    asked = len(prompt.ids) - len(before.ids)
    return Tokens(
        ids=prompt.ids + tuple(completion.ids),
        log_probabilities=(
            before.log_probabilities + (0.0,) * asked + tuple(completion.log_probabilities)
        ),
        turn_of=before.turn_of + (-1,) * asked + (conversation.turn,) * len(completion.ids),
        images=len(prompt.images),
    )
