"""Answers of a server: a completion, or one of the errors that a request can end with."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ...interface import PolicyRefusedError, PolicyUnavailableError
from ..chat_completion import Completion, CompletionError, read_completion
from ..server_words import REFUSALS, Answered, is_refusal, without_key, words_of
from .limits import room_in_context

KEEP_STOP = "include_stop_str_in_output"
"""Field that asks vLLM and our own server to leave the stop text in the reply."""
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_OWN_FAULTS = frozenset({400, 413, 422})  # of this request alone: others can succeed
_SHOWN_CHARACTERS = 300
_NAMES_TOP_K = re.compile(r"\btop_k\b")


class BadRequestError(PolicyUnavailableError):
    """The server rejects this one conversation: an image that it cannot read, for instance."""


class BusyError(Exception):
    """The server is busy, failing or unreachable: the request can be repeated.

    Attributes:
        retry_seconds: Seconds after which the server wants it; None where it does not say.
        was_answered: Whether there was a response at all.
    """

    def __init__(
        self, message: str, retry_seconds: float | None = None, *, was_answered: bool = True
    ) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds
        self.was_answered = was_answered


class UnknownFieldError(Exception):
    """The server does not know a field that can be left out."""


class FullContextError(Exception):
    """The server's context is too short for prompt and reply.

    Attributes:
        room: Tokens that it leaves for the reply.
    """

    def __init__(self, room: int) -> None:
        super().__init__(f"the context leaves {room} tokens")
        self.room = room


def failure_of(response: Answered, own: Mapping[str, Any], key: str) -> Exception:
    """Return the error that an unsuccessful response stands for.

    Args:
        response: Response of the server.
        own: Fields of the request that OpenAI does not know.
        key: API key, which the message must not show.
    """
    words, status = words_of(response, key), response.status_code
    if status in _OWN_FAULTS:
        room = room_in_context(status, response.text)
        if KEEP_STOP in own and KEEP_STOP in response.text:
            return UnknownFieldError(words)
        if "top_k" in own and _NAMES_TOP_K.search(response.text):
            return ValueError(
                f"the server does not take top_k={own['top_k']} ({words}): set top_k to 0"
            )
        return BadRequestError(words) if room is None else FullContextError(room)
    if status in _BUSY:
        return BusyError(words, _retry_seconds(response.headers.get("retry-after", "")))
    return PolicyRefusedError(words) if is_refusal(response) else PolicyUnavailableError(words)


def _retry_seconds(header: str) -> float | None:
    """Parse ``Retry-After``, in seconds or as a date; None where it is absent or invalid."""
    with contextlib.suppress(ValueError):
        seconds = float(header)
        return None if math.isnan(seconds) else max(seconds, 0.0)
    try:
        then = parsedate_to_datetime(header)
    except (TypeError, ValueError):  # which of them depends on the input
        return None
    then = then if then.tzinfo is not None else then.replace(tzinfo=UTC)
    return max((then - datetime.now(UTC)).total_seconds(), 0.0)


def read_answer(response: Answered, key: str) -> Completion:
    """Read the first choice.

    Raises:
        PolicyUnavailableError: The server's answer contains no text of the model.
    """
    try:
        return read_completion(json.loads(response.text))
    except CompletionError as error:
        words = without_key(str(error), key)
        if error.status in _BUSY:
            raise BusyError(words) from error
        raise _kind_of(error.status)(words) from error
    except (ValueError, RecursionError) as error:
        shown = without_key(response.text, key)[:_SHOWN_CHARACTERS]
        raise PolicyUnavailableError(f"not a chat completion: {shown!r}") from error


def _kind_of(status: int | None) -> type[PolicyUnavailableError]:
    """Return the error class of an error status in the body of a successful response."""
    if status in REFUSALS:
        return PolicyRefusedError
    return BadRequestError if status in _OWN_FAULTS else PolicyUnavailableError
