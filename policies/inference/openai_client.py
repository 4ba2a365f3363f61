"""A model behind an OpenAI-compatible server (vLLM, SGLang, a vendor) as a policy.

Each episode's requests are made by themselves, through OpenAI's own client. Requests to a busy,
failing, unresponsive or absent server are retried a few times, with exponential backoff or at the
time that it names (``Retry-After``); then the conversation is lost to infrastructure, never scored
as the model's fault. Limits of requests and tokens per minute are observed, and usage is counted.
The key goes into the request's header and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ...envs.parsing import Interface
from ...envs.text.unicode_text import escape_surrogates, lone_surrogate
from ...envs.types import Message
from ..interface import Conversation, Reply, Sampling
from .endpoint import Endpoint, Meter, Usage
from .openai_server.connection import Connection
from .openai_server.replies import OpenAIReplies, Served
from .partial_replies import ask_each
from .server_words import checked_key, checked_url

if TYPE_CHECKING:
    from PIL import Image

    from .openai_server.notes import ServedNotes


class OpenAIPolicy:
    """Requests ``POST {base_url}/chat/completions`` for each conversation, several at a time.

    `Sampling` means what it means in our own engine: a reply ends with the stop text that ended it
    (`openai_server.stop_texts` has the rule), and an episode whose prompt and replies exceed
    ``max_tokens``, or the server's context, ends at its token limit. Tokens are those that the
    server counts; where it counts none they are estimated (three characters a token, 1,000 tokens
    an image), or with notes encoded here. The text of a reply beyond the limit is kept, since only
    the server could cut it. ``top_k`` is sent if it is not 0; OpenAI itself refuses it.

    Args:
        model: Name of the model on the server.
        base_url: Base URL, such as ``http://localhost:8000/v1``; None for the endpoint's.
        api_key: API key; None for the endpoint's, or the environment's ``OPENAI_API_KEY``.
        endpoint: Limits, prices, timeout, retries and notes; None for no limits.
        sleep: Function that waits.

    Raises:
        ValueError: There is no base URL, neither here nor in the environment's
            ``OPENAI_BASE_URL``; it is not a URL; the key is not valid in a header; the model's
            name is not valid in a request; or OpenAI's client is not installed.
        ModelFolderError: The notes cannot be read.
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
        endpoint = endpoint or Endpoint()
        url = base_url or endpoint.base_url or os.environ.get("OPENAI_BASE_URL")
        if not url:
            raise ValueError(
                f"the server of {model} is unknown: set --base-url (or server.base_url in "
                "flows.yaml, or OPENAI_BASE_URL), such as http://localhost:8000/v1"
            )
        if half := lone_surrogate(model):
            raise ValueError(f"the model's name holds {half}, half of a character: write it again")
        key = endpoint.api_key if api_key is None else api_key
        key = checked_key(os.environ.get("OPENAI_API_KEY", "") if key is None else key)
        self._url = checked_url(url)
        self._connection = Connection(
            self._url,
            key=key,
            timeout_seconds=endpoint.timeout_seconds,
            concurrency=endpoint.concurrency,
        )
        self._notes = None if endpoint.notes is None else _read_notes(endpoint.notes)
        pause = asyncio.sleep if sleep is time.sleep else _in_thread(sleep)
        self._served = Served(
            model=model,
            url=self._url + "/chat/completions",
            key=key,
            endpoint=endpoint,
            connection=self._connection,
            meter=Meter(endpoint, sleep=pause),
            pause=pause,
            notes=self._notes,
            message=openai_message,
        )

    @property
    def usage(self) -> Usage:
        """Usage so far."""
        return self._served.meter.usage

    @property
    def id(self) -> str:
        """Name of the model, and its server."""
        host = self._url.split("://", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1]
        return f"{self._served.model}@{host}"

    @property
    def system_prompt(self) -> str | None:
        """System prompt of the notes; None for the interface's own, empty for no message."""
        return None if self._notes is None else self._notes.system_prompt

    @property
    def max_pixels(self) -> int | None:
        """Largest image of the notes; None for the environment's own limit."""
        return None if self._notes is None else self._notes.max_pixels

    @property
    def interface(self) -> Interface | None:
        """Tool interface of the notes; None where that is not known."""
        return None if self._notes is None else self._notes.interface

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Request the next reply of each conversation.

        Raises:
            PartialRepliesError: Some requests failed; the error holds the replies of the others.
            ValueError: The server does not take a sampling parameter.
        """
        return ask_each(self, conversations, sampling)

    @asynccontextmanager
    async def connect(self, *, sampling: Sampling) -> AsyncGenerator[OpenAIReplies]:
        """Open a source of replies within the running event loop; connections are shared."""
        yield OpenAIReplies(self._served, sampling)

    def close(self) -> None:
        """Close the connections, as happens by itself when nothing refers to the policy."""
        self._connection.close()


def _read_notes(source: str) -> ServedNotes:
    from .openai_server.notes import ServedNotes

    return ServedNotes(source)


def _in_thread(sleep: Callable[[float], None]) -> Callable[[float], Coroutine[Any, Any, None]]:
    """Return a coroutine function that waits by a function that blocks."""

    async def pause(seconds: float) -> None:
        await asyncio.to_thread(sleep, seconds)

    return pause


def openai_message(
    message: Message, image_url: Callable[[Image.Image], str] | None = None
) -> dict[str, Any]:
    """Return a message in OpenAI's chat format, with images as data URLs.

    Args:
        message: Message.
        image_url: Function that returns the data URL of an image; None for `data_uri`.
    """
    if not message.images:
        text = "".join(part for part in message.parts if isinstance(part, str))
        return {"role": message.role, "content": escape_surrogates(text)}
    content: list[dict[str, Any]] = [
        {"type": "text", "text": escape_surrogates(part)}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": (image_url or data_uri)(part)}}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def data_uri(image: Image.Image) -> str:
    """Return an image as a data URL, losslessly.

    Compression is fast rather than strong: the usual level takes two to three times as long, more
    than all else that a turn costs this process, and saves a tenth to a quarter of the bytes.
    """
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)  # the image that the code sees
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
