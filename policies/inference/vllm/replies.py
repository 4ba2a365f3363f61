"""Replies of vLLM servers, each requested by itself: bounded retries, and three outcomes.

A reply, a prompt or reply at its token limit, or an error of infrastructure: there is nothing else.
A request waits while every server is unreachable or paused, and is repeated where a server failed,
both within bounds; a server that answers with something else than what was asked is not believed.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import TYPE_CHECKING

from ...interface import (
    Conversation,
    PolicyRefusedError,
    PolicyUnavailableError,
    Reply,
    Sampling,
)
from ...models.prompt_encoder import PromptEncoder
from ...seeds import derive_seed
from ..prompts import extend_tokens, images_of, new_token_limit, prompt_ids
from ..server_words import is_refusal, short, without_credentials, words_of
from .image_urls import ImageUrls
from .servers import Server, Servers
from .settings import VllmSettings, VllmUsage
from .wire import (
    GENERATE_PATH,
    AnswerError,
    Generated,
    PausedError,
    Request,
    Rules,
    read_answer,
    request_body,
)

if TYPE_CHECKING:
    import httpx

_OWN_FAULTS = frozenset({400, 413, 422})  # of this request alone: the same one fails again
_PAUSED = 503
_LOOK_UP_SECONDS = 10.0


class VllmReplies:
    """Open connections of a `VllmPolicy`, used within one event loop.

    Args:
        encoder: Chat encoding and image preprocessing of the model.
        servers: Servers.
        client: HTTP client.
        settings: Timeouts, retries and names.
        sampling: Sampling parameters.
        usage: Counter of requests and tokens.
        image_urls: Cache of images as they are sent.
    """

    def __init__(  # noqa: PLR0913 - what all requests share; each by name
        self,
        encoder: PromptEncoder,
        servers: Servers,
        client: httpx.AsyncClient,
        *,
        settings: VllmSettings,
        sampling: Sampling,
        usage: VllmUsage,
        image_urls: ImageUrls,
    ) -> None:
        self._encoder = encoder
        self._servers = servers
        self._client = client
        self._settings = settings
        self._usage = usage
        self._image_urls = image_urls
        self._rules = Rules(
            sampling,
            encoder.chat.end_id,
            frozenset(encoder.forbidden_ids),
            encoder.vocabulary,
            settings.weight_version,
        )

    async def look_up(self) -> None:
        """Ask each server for its context length; one that answers is not left alone any more."""
        await asyncio.gather(*(self._look_up(one) for one in self._servers.all))

    async def reply(self, conversation: Conversation) -> Reply:
        """Generate the next turn of a conversation; append its ids to `Conversation.tokens`.

        Raises:
            PolicyUnavailableError: No server gave a reply to exactly this prompt in time.
            PolicyRefusedError: The servers reject every request.
        """
        begun = time.monotonic()
        request, content = await asyncio.to_thread(self._prepare, conversation)
        made = Generated((), (), is_stopped=False)
        if request.limit > 0:
            try:
                made = await self._generate(request, content, conversation.seed)
            except PolicyUnavailableError:
                self._usage.count(failures=1)
                raise
        chat = self._encoder.chat
        conversation.tokens = extend_tokens(
            conversation,
            request.ids,
            made.ids,
            made.log_probabilities,
            images=len(request.image_urls),
            weight_versions=made.weight_versions,
        )
        is_cut = not (made.is_stopped or made.ids[-1:] == (chat.end_id,))
        seconds = time.monotonic() - begun
        return Reply(chat.decode(made.ids), is_cut, new_tokens=len(made.ids), seconds=seconds)

    def _prepare(self, conversation: Conversation) -> tuple[Request, bytes]:
        """Return what a conversation's next reply is asked with, and the body of the request."""
        encoder, sampling = self._encoder, self._rules.sampling
        ids = prompt_ids(encoder.chat, conversation)
        limit = new_token_limit(sampling, len(ids))
        if (context := self._servers.context_length) is not None:
            limit = max(min(limit, context - len(ids)), 0)
        images = images_of(conversation)
        seed = derive_seed("tokens", conversation.seed, conversation.turn)
        request = Request(
            ids,
            encoder.collapse(ids, images),
            [self._image_urls.url(image) for image in images],
            limit,
            seed if self._settings.seeds else None,
        )
        body = request_body(request, self._rules, model=self._settings.model)
        return request, json.dumps(body).encode()

    async def _generate(self, request: Request, content: bytes, episode: int) -> Generated:
        """Request a reply from one server after another, within the limits of the settings."""
        failures, gives_up_at = 0, math.inf
        while failures <= self._settings.max_retries:
            server = self._servers.enter(episode)
            if server is None:
                rest, now = self._servers.seconds_left, time.monotonic()
                gives_up_at = min(gives_up_at, now + self._settings.patience_seconds)
                if now + rest > gives_up_at:
                    break
                await asyncio.sleep(rest)
                continue
            try:
                return await self._ask(server, content, request)
            except _UnreachableError:
                failures += not self._servers.has_answered  # else waited for, as long as patience
            except PausedError as error:
                self._servers.rest(server, str(error))
            except AnswerError as error:
                server.reason = str(error)
                if error.is_final:
                    raise
                failures += 1
            finally:
                self._servers.leave(server)
            self._usage.count(retries=1)
        raise PolicyUnavailableError(self._servers.reason)

    async def _ask(self, server: Server, content: bytes, request: Request) -> Generated:
        """Send one request to one server."""
        response = await self._post(server, content)
        url = without_credentials(server.url)
        words = f"{url}: {words_of(response, self._settings.api_key)}"
        if response.status_code == _PAUSED:
            raise PausedError(words)
        if is_refusal(response):
            raise PolicyRefusedError(
                f"{words}; is it vLLM 0.32 or later, started with --enable-scale-out?"
            )
        if response.status_code in _OWN_FAULTS:
            raise AnswerError(words, is_final=True)
        if not response.is_success:
            self._servers.failed(server, words)
            raise AnswerError(words)
        self._servers.succeeded(server)
        try:
            made = read_answer(response.json(), request, self._rules)
        except PausedError as error:
            raise PausedError(f"{url}: {error}") from error
        except AnswerError as error:
            raise AnswerError(f"{url}: {error}", is_final=error.is_final) from error
        except (ValueError, RecursionError) as error:
            raise AnswerError(f"{url}: no JSON: {short(response.text)!r}") from error
        self._usage.count(
            prompt_tokens=len(request.ids), cached_tokens=made.cached or 0, new_tokens=len(made.ids)
        )
        return made

    async def _post(self, server: Server, content: bytes) -> httpx.Response:
        import httpx

        self._usage.count(requests=1)
        url, seconds = without_credentials(server.url), self._settings.timeout_seconds
        headers = {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(seconds):
                return await self._client.post(
                    server.url + GENERATE_PATH, content=content, headers=headers
                )
        except TimeoutError:
            failure = AnswerError(f"{url} gave no answer within {seconds:g} s")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = _UnreachableError(f"{url} is unreachable: {short(str(error))}")
        except httpx.HTTPError as error:
            failure = AnswerError(f"{url} broke off: {type(error).__name__}: {short(str(error))}")
        self._servers.failed(server, str(failure))
        raise failure

    async def _look_up(self, server: Server) -> None:
        """Read the context length that a server reports."""
        import httpx

        try:
            response = await self._client.get(server.url + "/v1/models", timeout=_LOOK_UP_SECONDS)
            listed = response.json()["data"]
            lengths = [one.get("max_model_len") for one in listed]
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError):
            return
        self._servers.succeeded(server)
        known = [length for length in lengths if isinstance(length, int) and length > 0]
        server.context_length = min(known, default=None)


class _UnreachableError(PolicyUnavailableError):
    """No connection to a server: the request was never sent."""
