"""A model behind an OpenAI-compatible server (vLLM, SGLang, a vendor) as a policy.

Bounded: a busy or absent server is asked again a few times, then the conversation is lost to
infrastructure, never scored as the model's fault. The key goes into the request's header and
nowhere else.
"""

from __future__ import annotations

import base64
import io
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ..envs.types import Message
from .interface import Conversation, PolicyUnavailableError, Reply, Sampling
from .partial_replies import PartialRepliesError
from .seeds import derive_seed

if TYPE_CHECKING:
    import httpx
    from PIL import Image

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT_SECONDS = 30.0
_SHOWN_CHARACTERS = 300


class OpenAIPolicy:
    """Asks ``POST {base_url}/chat/completions`` for each conversation, several at a time.

    Args:
        model: The model's name on the server.
        base_url: Such as ``http://localhost:8000/v1``.
        api_key: By default the environment's ``OPENAI_API_KEY``; servers of one's own need none.
        timeout_seconds: Of one request.
        max_retries: How often a busy server is asked again.
        concurrency: Requests at a time.
        sleep: How it waits.
    """

    def __init__(  # noqa: PLR0913 - a server's settings, each with a default
        self,
        model: str,
        *,
        base_url: str,
        api_key: str | None = None,
        timeout_seconds: float = 120.0,
        max_retries: int = 4,
        concurrency: int = 8,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._model = model
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", "")
        self._timeout_seconds = timeout_seconds
        self._max_retries = max_retries
        self._concurrency = concurrency
        self._sleep = sleep

    @property
    def id(self) -> str:
        """The model's name and its server."""
        return f"{self._model}@{self._url.split('://', 1)[-1].split('/', 1)[0].rsplit('@', 1)[-1]}"

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Ask for the next text of each conversation.

        Raises:
            PartialRepliesError: Some could not be asked; it holds the replies of the others.
        """
        import httpx

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        with (
            httpx.Client(timeout=self._timeout_seconds, headers=headers) as client,
            ThreadPoolExecutor(self._concurrency, thread_name_prefix="openai") as pool,
        ):
            asked = pool.map(lambda one: self._try_ask(client, one, sampling), conversations)
            results = list(asked)
        replies = [result if isinstance(result, Reply) else None for result in results]
        reasons = [str(result) for result in results if isinstance(result, PolicyUnavailableError)]
        if reasons:
            raise PartialRepliesError(
                f"{len(reasons)} of {len(results)} conversations got no reply: {reasons[0]}",
                replies,
            )
        return [reply for reply in replies if reply is not None]

    def _try_ask(
        self, client: httpx.Client, conversation: Conversation, sampling: Sampling
    ) -> Reply | PolicyUnavailableError:
        try:
            return self._ask(client, conversation, sampling)
        except PolicyUnavailableError as error:
            return error

    def _ask(self, client: httpx.Client, conversation: Conversation, sampling: Sampling) -> Reply:
        import httpx

        body = self._request(conversation, sampling)
        wait_seconds = 0.0
        reason = "never asked"
        for attempt in range(self._max_retries + 1):
            if attempt:
                self._sleep(min(wait_seconds, _LONGEST_WAIT_SECONDS))
            wait_seconds = 0.5 * 2.0**attempt
            try:
                response = client.post(self._url, json=body)
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if response.is_success:
                return _read(response)
            reason = f"HTTP {response.status_code}: {response.text[:_SHOWN_CHARACTERS]}"
            if response.status_code not in _BUSY:
                break
            wish = response.headers.get("retry-after", "")
            wait_seconds = float(wish) if wish.isdigit() else wait_seconds
        raise PolicyUnavailableError(f"{self._url} gave no reply ({reason})")

    def _request(self, conversation: Conversation, sampling: Sampling) -> dict[str, Any]:
        seed = derive_seed("openai", conversation.seed, conversation.turn) & 0x7FFFFFFF
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [openai_message(message) for message in conversation.messages],
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed,
        }
        if sampling.top_p < 1.0:
            body["top_p"] = sampling.top_p
        return body


def openai_message(message: Message) -> dict[str, Any]:
    """Give a message as OpenAI's chat form has it, pictures as data URLs."""
    if not message.images:
        text = "".join(part for part in message.parts if isinstance(part, str))
        return {"role": message.role, "content": text}
    content: list[dict[str, Any]] = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _data_uri(part)}}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")  # lossless: the picture the code sees
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _read(response: httpx.Response) -> Reply:
    """Read the first choice.

    Raises:
        PolicyUnavailableError: The server's answer is not that of a chat completion.
    """
    try:
        data = response.json()
        choice = data["choices"][0]
        text = choice["message"].get("content") or ""
        is_cut = choice.get("finish_reason") == "length"
        new_tokens = int((data.get("usage") or {}).get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        shown = response.text[:_SHOWN_CHARACTERS]
        raise PolicyUnavailableError(f"not a chat completion: {shown!r}") from error
    return Reply(text=str(text), is_cut=is_cut, new_tokens=new_tokens)
