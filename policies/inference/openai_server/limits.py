"""Token limits behind a server: an estimate of a prompt, and a context that is too short for it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ....envs.types import Message

_CHARACTERS_A_TOKEN = 3.0
_TOKENS_A_PICTURE = 1000.0
_STATUSES = frozenset({400, 413, 422})
_CODES = ("context_length_exceeded", "exceed_context_size_error")
_CONTEXT = re.compile(r"context length (?:is |of )?(?:only )?\(?(\d+)")
_PROMPT = re.compile(
    r"(?<!\d)(\d+) (?:text )?input tokens"
    r"|(?<!\d)(\d+) (?:tokens )?(?:in|from) (?:the|your) (?:input|messages|prompt)"
    r"|input \((\d+) tokens|resulted in (\d+) tokens"
)


def estimated_tokens(messages: Sequence[Message]) -> float:
    """Estimate the tokens of messages, before or without a server's count."""
    texts = sum(len(message.text) for message in messages)
    pictures = sum(len(message.images) for message in messages)
    return texts / _CHARACTERS_A_TOKEN + pictures * _TOKENS_A_PICTURE


def estimated_text_tokens(text: str) -> float:
    """Estimate the tokens of a text."""
    return len(text) / _CHARACTERS_A_TOKEN


def room_in_context(status: int, body: str) -> int | None:
    """Return the tokens that a server's context leaves for a reply.

    Args:
        status: Status of an error response.
        body: Its body.

    Returns:
        Tokens left after the prompt, 0 where it leaves none or does not say; None where the error
        is another one.

    >>> room_in_context(400, "maximum context length is 4096 tokens … 4000 input tokens")
    96
    >>> room_in_context(400, '{"error": {"code": "context_length_exceeded"}}')
    0
    >>> room_in_context(400, "no such image") is None
    True
    """
    if status not in _STATUSES:
        return None
    context = _CONTEXT.search(body)
    if context is None and not any(code in body for code in _CODES):
        return None
    prompt = _PROMPT.search(body)
    if context is None or prompt is None:
        return 0
    used = next(int(count) for count in prompt.groups() if count is not None)
    return max(int(context[1]) - used, 0)
