"""Replies of an OpenAI-compatible server, each requested by itself: retries, and three outcomes.

A reply, an episode at its token limit, or an error of infrastructure. What a server takes no
request with (``top_k``, where it does not know it) is an error of the settings, and ends a rollout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ....envs.types import Message
from ...interface import (
    Conversation,
    PolicyRefusedError,
    PolicyUnavailableError,
    Reply,
    Sampling,
)
from ..chat_completion import Completion
from ..endpoint import Endpoint, Meter
from ..server_words import without_credentials, without_key
from .answers import (
    KEEP_STOP,
    BadRequestError,
    BusyError,
    FullContextError,
    UnknownFieldError,
    failure_of,
    read_answer,
)
from .connection import Connection, Link, NoAnswerError
from .limits import estimated_text_tokens, estimated_tokens
from .stop_texts import finish_text, sent_stops

if TYPE_CHECKING:
    from PIL import Image

    from .notes import ServedNotes

    ImageUrl = Callable[[Image.Image], str]

_LONGEST_BACKOFF_SECONDS = 30.0
_LONGEST_RETRY_SECONDS = 600.0  # a longer Retry-After ends the retries
_MOST_CHANGES = 3  # of one request, until a server takes it
_MOST_CHARACTERS = 128  # of the longest token, a run of spaces


@dataclass(slots=True, eq=False)
class Served:
    """A model on a server, and what all requests to it share.

    Attributes:
        model: Name of the model on the server.
        url: URL of the requests, as messages show it.
        key: API key, which they must not show.
        endpoint: Limits and retries.
        connection: Connections to the server.
        meter: Rate limiter and usage counter.
        pause: Coroutine function that waits before a retry.
        message: Function that returns a message in OpenAI's format, given the message and what
            makes data URLs of its images (None for their own size).
        notes: What is known of the model; None for nothing.
        has_answered: Whether the server has ever given a reply.
        takes_kept_stop: Whether it is asked to leave stop texts in replies; until it refuses.
    """

    model: str
    url: str
    key: str
    endpoint: Endpoint
    connection: Connection
    meter: Meter
    pause: Callable[[float], Awaitable[None]]
    message: Callable[[Message, ImageUrl | None], dict[str, Any]]
    notes: ServedNotes | None = None
    has_answered: bool = False
    takes_kept_stop: bool = True


class OpenAIReplies:
    """Requests the replies of a server; used within any event loop.

    Until the server has answered at all, the first failed conversation decides for the rest: after
    a refusal they are not sent, after other failures sent once, without retries.

    Args:
        served: The model on its server.
        sampling: Sampling parameters.
    """

    def __init__(self, served: Served, sampling: Sampling) -> None:
        self._served = served
        self._sampling = sampling
        self._hopeless: PolicyUnavailableError | None = None

    async def reply(self, conversation: Conversation) -> Reply:
        """Request the next reply of a conversation; note the server's count of its tokens.

        Raises:
            PolicyUnavailableError: The server gave no reply; only this conversation is lost.
            PolicyRefusedError: It rejects every request.
            ValueError: It does not take a sampling parameter.
        """
        asked = self._served.connection.submit(lambda link: self._reply(link, conversation))
        return await asyncio.wrap_future(asked)

    async def _reply(self, link: Link, conversation: Conversation) -> Reply:
        served = self._served
        async with link.slots:
            if isinstance(self._hopeless, PolicyRefusedError):
                served.meter.count(failures=1)
                raise PolicyRefusedError(str(self._hopeless))
            try:
                return await self._ask(link, conversation)
            except PolicyUnavailableError as error:
                served.meter.count(failures=1)
                failure = type(error)(without_key(str(error), served.key))
                if not served.has_answered and not isinstance(error, BadRequestError):
                    self._hopeless = failure
                raise failure from None  # whose causes can hold the key

    async def _ask(self, link: Link, conversation: Conversation) -> Reply:
        """Request a reply within the episode's limit; cut one of a server that ignores limits."""
        request = await asyncio.to_thread(self._request, conversation)
        if request.limit <= 0:
            return Reply("", is_cut=True)
        answer = await self._answer(link, request)
        self._served.has_answered, self._hopeless = True, None
        if answer is None:
            return Reply("", is_cut=True)
        found, seconds = answer
        text, is_cut = finish_text(found, self._sampling.stop)
        prompt = found.read_tokens or request.prompt
        whole = prompt + (found.new_tokens or estimated_text_tokens(found.text))
        conversation.served_tokens = int(whole) if found.read_tokens else 0
        if prompt >= self._sampling.max_tokens:
            text, is_cut = "", True
        most = _MOST_CHARACTERS * request.limit
        is_over = max(found.new_tokens - request.limit, len(text) - most) > 0
        return Reply(
            text[:most],
            is_cut or is_over or whole > self._sampling.max_tokens,
            new_tokens=found.new_tokens,
            seconds=seconds,
        )

    def _request(self, conversation: Conversation) -> _Request:
        """Return the request for a reply; its limit is what the episode has left at most.

        The prompt's length is known from the notes of the model, or what the server counted at the
        turn before is its least; it is estimated where a server does not count.
        """
        sampling, notes = self._sampling, self._served.notes
        prompt = estimated_tokens(conversation.messages)
        least = prompt if conversation.turn else 0.0
        if notes is not None:
            own = notes.prompt_tokens(conversation.messages)
            prompt = least = float(max(own, conversation.served_tokens))
        elif conversation.served_tokens:
            least = float(conversation.served_tokens)
        limit = min(sampling.max_new_tokens, int(sampling.max_tokens - least))
        image_url = None if notes is None else notes.image_url
        asked = conversation.messages if limit > 0 else ()
        messages = [self._served.message(one, image_url) for one in asked]
        return _Request(messages, conversation.seed, limit, prompt)

    async def _answer(self, link: Link, request: _Request) -> tuple[Completion, float] | None:
        """Send a request, without what the server does not take; None where its context is full."""
        for _ in range(_MOST_CHANGES):
            try:
                return await self._send(link, request)
            except UnknownFieldError:
                self._served.takes_kept_stop = False
            except FullContextError as full:
                if not 0 < full.room < request.limit:
                    return None
                request = replace(request, limit=full.room)
        return None

    async def _send(self, link: Link, request: _Request) -> tuple[Completion, float]:
        """Send a request, again while the server is busy; return the answer and its seconds."""
        served = self._served
        url = without_credentials(served.url)
        wait_seconds, reason = 0.0, "not requested"
        for attempt in range(served.endpoint.max_retries + 1):
            if attempt and self._hopeless is not None:
                break
            if attempt:
                served.meter.count(retries=1)
                await served.pause(wait_seconds)
            wait_seconds = min(0.5 * 2.0**attempt, _LONGEST_BACKOFF_SECONDS)
            entry = await served.meter.enter(request.expected)
            begun = time.monotonic()
            try:
                answer = await self._attempt(link, request)
            except BusyError as error:
                reason = str(error)
                if error.was_answered:
                    served.meter.leave(entry, read=0, written=0)
                if (error.retry_seconds or 0.0) > _LONGEST_RETRY_SECONDS:
                    break
                wait_seconds = wait_seconds if error.retry_seconds is None else error.retry_seconds
                continue
            except PolicyUnavailableError as error:
                served.meter.leave(entry, read=0, written=0)
                raise type(error)(f"{url} gave no reply ({error})") from error
            except (UnknownFieldError, FullContextError, ValueError):
                served.meter.leave(entry, read=0, written=0)
                raise
            served.meter.leave(entry, read=answer.read_tokens, written=answer.new_tokens)
            return answer, time.monotonic() - begun
        raise PolicyUnavailableError(f"{url} gave no reply ({reason})")

    async def _attempt(self, link: Link, request: _Request) -> Completion:
        body = self._body(request)
        try:
            response = await link.post(body)
        except NoAnswerError as error:
            raise BusyError(str(error), was_answered=False) from error
        if not 200 <= response.status_code < 300:
            raise failure_of(response, body["extra_body"], self._served.key)
        return read_answer(response, self._served.key)

    def _body(self, request: _Request) -> dict[str, Any]:
        """Return the fields of a request; those that OpenAI does not know in ``extra_body``."""
        sampling = self._sampling
        own: dict[str, Any] = {"top_k": sampling.top_k} if sampling.top_k else {}
        if sampling.stop and self._served.takes_kept_stop:
            own[KEEP_STOP] = True
        body: dict[str, Any] = {
            "model": self._served.model,
            "messages": request.messages,
            "temperature": sampling.temperature,
            "max_tokens": request.limit,
            "seed": request.seed,  # `codedance serve model` samples as this process would
            "extra_body": own,
        }
        if sampling.top_p < 1.0:
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop"] = sent_stops(sampling.stop)
        return body


@dataclass(frozen=True, slots=True)
class _Request:
    """A request for a reply.

    Attributes:
        messages: Messages in OpenAI's format.
        seed: Random seed.
        limit: Limit of new tokens.
        prompt: Length of the prompt in tokens, estimated where it is not known.
    """

    messages: list[dict[str, Any]]
    seed: int
    limit: int
    prompt: float

    @property
    def expected(self) -> float:
        """Tokens of prompt and reply, for the rate limit."""
        return self.prompt + self.limit
