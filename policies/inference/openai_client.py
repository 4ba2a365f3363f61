"""A model behind an OpenAI-compatible server (vLLM, SGLang, a vendor) as a policy.

Requests to a busy, failing, unresponsive or absent server are retried a few times, with exponential
backoff or at the time that it names (``Retry-After``); then the conversation is lost to
infrastructure, never scored as the model's fault. Limits of requests and tokens per minute are
observed, and usage is counted. The key goes into the request's header and nowhere else.
"""

from __future__ import annotations

import base64
import contextlib
import io
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from ...envs.text.unicode_text import escape_surrogates, lone_surrogate
from ...envs.types import Message
from ..interface import Conversation, PolicyRefusedError, PolicyUnavailableError, Reply, Sampling
from .chat_completion import CompletionError, read_completion
from .endpoint import Endpoint, Meter, Usage
from .partial_replies import raise_if_partial
from .server_words import (
    REFUSALS,
    checked_key,
    checked_url,
    is_refusal,
    short,
    without_credentials,
    without_key,
    words_of,
)

if TYPE_CHECKING:
    import httpx
    from PIL import Image

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_BACKOFF_SECONDS = 30.0
_LONGEST_RETRY_SECONDS = 600.0  # a longer Retry-After ends the retries
_CHARACTERS_A_TOKEN = 3.0  # estimate, before the server has counted
_TOKENS_A_PICTURE = 1000.0
_OWN_FAULTS = frozenset({400, 413, 422})  # of this request alone: others can succeed
_SHOWN_CHARACTERS = 300


class _BusyAnswerError(PolicyUnavailableError):
    """The body of a successful response reports that the server is busy or failed."""


class _BadRequestError(PolicyUnavailableError):
    """The server rejects this one conversation: too long, or an image that it cannot read."""


class OpenAIPolicy:
    """Requests ``POST {base_url}/chat/completions`` for each conversation, several at a time.

    Args:
        model: Name of the model on the server.
        base_url: Base URL, such as ``http://localhost:8000/v1``; None for the endpoint's.
        api_key: API key; None for the endpoint's, or the environment's ``OPENAI_API_KEY``.
        endpoint: Limits, prices, timeout and retries; None for no limits.
        sleep: Function that waits.

    Raises:
        ValueError: There is no base URL, neither here nor in the environment's
            ``OPENAI_BASE_URL``; it is not a URL; the key is not valid in a header; or the model's
            name is not valid in a request.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        endpoint: Endpoint | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint = endpoint or Endpoint()
        url = base_url or self._endpoint.base_url or os.environ.get("OPENAI_BASE_URL")
        if not url:
            raise ValueError(
                f"the server of {model} is unknown: set --base-url (or server.base_url in "
                "flows.yaml, or OPENAI_BASE_URL), such as http://localhost:8000/v1"
            )
        if half := lone_surrogate(model):
            raise ValueError(f"the model's name holds {half}, half of a character: write it again")
        key = self._endpoint.api_key if api_key is None else api_key
        self._model = model
        self._url = checked_url(url) + "/chat/completions"
        self._key = checked_key(os.environ.get("OPENAI_API_KEY", "") if key is None else key)
        self._has_answered = False
        self._hopeless: PolicyUnavailableError | None = None
        self._lock = threading.Lock()
        self._sleep = sleep
        self._meter = Meter(self._endpoint, sleep=sleep)

    @property
    def usage(self) -> Usage:
        """Usage so far."""
        return self._meter.usage

    @property
    def id(self) -> str:
        """Name of the model, and its server."""
        return f"{self._model}@{self._url.split('://', 1)[-1].split('/', 1)[0].rsplit('@', 1)[-1]}"

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Request the next reply of each conversation.

        Raises:
            PartialRepliesError: Some requests failed; the error holds the replies of the others.
        """
        import httpx

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._hopeless = None
        with (
            httpx.Client(timeout=self._endpoint.timeout_seconds, headers=headers) as client,
            ThreadPoolExecutor(self._endpoint.concurrency, thread_name_prefix="openai") as pool,
        ):
            asked = pool.map(lambda one: self._try_ask(client, one, sampling), conversations)
            results = list(asked)
        replies = [result if isinstance(result, Reply) else None for result in results]
        errors = [None if isinstance(result, Reply) else result for result in results]
        raise_if_partial(replies, errors)
        return [reply for reply in replies if reply is not None]

    def _try_ask(
        self, client: httpx.Client, conversation: Conversation, sampling: Sampling
    ) -> Reply | PolicyUnavailableError:
        """Request one reply, with fewer retries where an earlier conversation failed.

        Until the server has answered at all, the first failed conversation of a call decides for
        the rest: after a refusal they are not sent, after other failures sent once, without
        retries.
        """
        hopeless = self._hopeless
        if isinstance(hopeless, PolicyRefusedError):
            self._meter.count(failures=1)
            return hopeless
        try:
            reply = self._ask(client, conversation, sampling)
        except PolicyUnavailableError as error:
            self._meter.count(failures=1)
            failure = type(error)(without_key(str(error), self._key))
            with self._lock:
                if not self._has_answered and not isinstance(error, _BadRequestError):
                    self._hopeless = failure
            return failure
        with self._lock:
            self._has_answered, self._hopeless = True, None
        return reply

    def _ask(self, client: httpx.Client, conversation: Conversation, sampling: Sampling) -> Reply:
        import httpx

        body = self._request(conversation, sampling)
        expected = _expected_tokens(conversation, sampling)
        wait_seconds = 0.0
        reason, kind = "not requested", PolicyUnavailableError  # the class is narrowed below
        for attempt in range(self._endpoint.max_retries + 1):
            if attempt and self._hopeless is not None:
                break
            if attempt:
                self._meter.count(retries=1)
                self._sleep(wait_seconds)
            wait_seconds = min(0.5 * 2.0**attempt, _LONGEST_BACKOFF_SECONDS)
            entry = self._meter.enter(expected)
            begun = time.monotonic()
            try:
                response = client.post(self._url, json=body)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                reason = f"{type(error).__name__}: {short(str(error))}"
                continue
            if response.is_success:
                try:
                    reply, read = _read(response, self._key)
                except _BusyAnswerError as error:
                    self._meter.leave(entry, read=0, written=0)
                    reason = str(error)
                    continue
                self._meter.leave(entry, read=read, written=reply.new_tokens)
                return reply.timed(time.monotonic() - begun)
            self._meter.leave(entry, read=0, written=0)
            reason = words_of(response, self._key)
            retry_after = _retry_seconds(response.headers.get("retry-after", ""))
            if response.status_code not in _BUSY or (retry_after or 0.0) > _LONGEST_RETRY_SECONDS:
                kind = PolicyRefusedError if is_refusal(response) else kind
                kind = _BadRequestError if response.status_code in _OWN_FAULTS else kind
                break
            wait_seconds = wait_seconds if retry_after is None else retry_after
        raise kind(f"{without_credentials(self._url)} gave no reply ({reason})")

    def _request(self, conversation: Conversation, sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [openai_message(message) for message in conversation.messages],
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_new_tokens,
            "seed": conversation.seed,  # `codedance serve model` samples as this process would
        }
        if sampling.top_p < 1.0:
            body["top_p"] = sampling.top_p
        return body


def _expected_tokens(conversation: Conversation, sampling: Sampling) -> float:
    """Estimate the tokens of a request, for the limit of tokens per minute."""
    texts = sum(len(message.text) for message in conversation.messages)
    pictures = sum(len(message.images) for message in conversation.messages)
    return texts / _CHARACTERS_A_TOKEN + pictures * _TOKENS_A_PICTURE + sampling.max_new_tokens


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


def openai_message(message: Message) -> dict[str, Any]:
    """Return a message in OpenAI's chat format, with images as data URLs."""
    if not message.images:
        text = "".join(part for part in message.parts if isinstance(part, str))
        return {"role": message.role, "content": escape_surrogates(text)}
    content: list[dict[str, Any]] = [
        {"type": "text", "text": escape_surrogates(part)}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_uri(part)}}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def data_uri(image: Image.Image) -> str:
    """Return an image as a data URL, losslessly."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")  # the image that the code sees
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _read(response: httpx.Response, key: str) -> tuple[Reply, int]:
    """Read the first choice, and the server's count of prompt tokens.

    Raises:
        PolicyUnavailableError: The server's answer contains no text of the model.
    """
    try:
        found = read_completion(response.json())
    except CompletionError as error:
        raise _kind_of(error.status)(without_key(str(error), key)) from error
    except (ValueError, RecursionError) as error:
        shown = without_key(response.text, key)[:_SHOWN_CHARACTERS]
        raise PolicyUnavailableError(f"not a chat completion: {shown!r}") from error
    reply = Reply(text=found.text, is_cut=found.is_cut, new_tokens=found.new_tokens)
    return reply, found.read_tokens


def _kind_of(status: int | None) -> type[PolicyUnavailableError]:
    """Return the error class of an error status in the body of a successful response."""
    if status in _BUSY:
        return _BusyAnswerError
    if status in REFUSALS:
        return PolicyRefusedError
    return _BadRequestError if status in _OWN_FAULTS else PolicyUnavailableError
