"""Prompts over turns: exact ids from messages, and the record of ids that each reply extends.

What a model has sampled is never encoded from text again: the prompt of a turn is the record of the
turn before and the ids of the messages that came since.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...envs.types import Message, Tokens, WeightSpan
from ..interface import Conversation, Sampling
from ..models.chat_tokens import ChatTokenizer

if TYPE_CHECKING:
    from PIL import Image


def prompt_ids(chat: ChatTokenizer, conversation: Conversation) -> tuple[int, ...]:
    """Return the ids of a conversation so far, with the assistant's turn opened."""
    if conversation.tokens is None:
        return tuple(chat.open_prompt(conversation.messages))
    ids = conversation.tokens.ids
    if ids[-1] != chat.end_id:  # a turn that a limit or a stop text ended
        ids += (chat.end_id,)
    return ids + tuple(chat.after_reply(_since_last_reply(conversation.messages)))


def images_of(conversation: Conversation) -> list[Image.Image]:
    """Return the images of all messages so far, in order."""
    return [image for message in conversation.messages for image in message.images]


def new_token_limit(sampling: Sampling, length: int) -> int:
    """Return the limit of new tokens after a prompt of ``length`` tokens; 0 where none fits."""
    return max(min(sampling.max_new_tokens, sampling.max_tokens - length), 0)


def ends_turn(chat: ChatTokenizer, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Return whether the last of the sampled ids ended the turn, or completed a stop text."""
    if ids[-1] == chat.end_id or not stop:
        return ids[-1] == chat.end_id
    # A token has at least a byte: this window covers any stop text that the last one completes.
    window = max(len(text.encode()) for text in stop)
    written = chat.decode(ids[-window:])
    return any(text in written for text in stop)


def extend_tokens(
    conversation: Conversation,
    prompt: Sequence[int],
    ids: Sequence[int],
    log_probabilities: Sequence[float],
    *,
    images: int,
    weight_versions: Sequence[WeightSpan] = (),
) -> Tokens | None:
    """Return the record of exact ids, extended by a prompt's new ids and the sampled ids.

    A prompt without a reply is not recorded: nothing can be learnt from it, and a tool's output can
    be far longer than the limit that the prompt exceeds.

    Args:
        conversation: Conversation whose turn the ids are.
        prompt: Ids of the whole prompt.
        ids: Sampled ids.
        log_probabilities: Log-probability of each sampled id.
        images: Number of images of the prompt.
        weight_versions: Versions of the weights that the ids were sampled from, counted from the
            first sampled id; empty where the engine names none.
    """
    if not ids:
        return conversation.tokens
    before = conversation.tokens or Tokens((), (), ())
    asked = len(prompt) - len(before.ids)
    spans = tuple(
        WeightSpan(span.version, span.start + len(prompt), span.end + len(prompt))
        for span in weight_versions
    )
    return Tokens(
        ids=(*prompt, *ids),
        log_probabilities=(*before.log_probabilities, *(0.0,) * asked, *log_probabilities),
        turn_of=(*before.turn_of, *(-1,) * asked, *(conversation.turn,) * len(ids)),
        images=images,
        weight_versions=before.weight_versions + spans,
    )


def _since_last_reply(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages after the assistant's last one."""
    last = max(i for i, message in enumerate(messages) if message.role == "assistant")
    return messages[last + 1 :]
