"""Replies of vLLM servers, each requested by itself: bounded retries, and three outcomes.

A reply, a prompt or reply at its token limit, or an error of infrastructure: there is nothing else.
A request waits while every server is unreachable or paused, and is repeated where a server failed,
both within bounds; an answer to something else than what was asked is an error.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from .settings import ServedName, VllmSettings, VllmUsage
from .wire import (
    GENERATE_PATH,
    AnswerError,
    Generated,
    PausedError,
    Prompt,
    Rules,
    read_answer,
    request_body,
)

if TYPE_CHECKING:
    import httpx
    from PIL import Image

_OWN_FAULTS = frozenset({400, 413, 422})  # of this request alone: the same one fails again
_PAUSED = 503
_SUCCESS = 200
_LOOK_UP_SECONDS = 10.0
_SHORTEST_SLEEP_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 10.0  # of an attempt that came to nothing, counted as waiting
_NOTHING = Generated((), (), is_stopped=False)
_NUMBERS = itertools.count(start=-1, step=-1)
"""Numbers of conversations that are scored; those of episodes are seeds, from 0 on."""


class VllmReplies:
    """Open connections of a `VllmPolicy`, used within one event loop.

    Args:
        encoder: Chat encoding and image preprocessing of the model.
        servers: Servers.
        clients: HTTP clients, used in turn.
        settings: Timeouts and retries.
        served_as: Name that requests give as their model.
        sampling: Sampling parameters.
        usage: Counter of requests and tokens.
        image_urls: Cache of images as they are sent.
        on_return: Called with the URL of a server that answers for the first time, or again.
    """

    def __init__(  # noqa: PLR0913 - what all requests share; each by name
        self,
        encoder: PromptEncoder,
        servers: Servers,
        clients: Sequence[httpx.AsyncClient],
        *,
        settings: VllmSettings,
        served_as: ServedName,
        sampling: Sampling,
        usage: VllmUsage,
        image_urls: ImageUrls,
        on_return: Callable[[str], None] | None = None,
    ) -> None:
        self._encoder = encoder
        self._servers = servers
        self._clients = itertools.cycle(clients)
        self._settings = settings
        self._served_as = served_as
        self._usage = usage
        self._image_urls = image_urls
        self._on_return = on_return
        self._rules = Rules(
            sampling,
            encoder.chat.end_id,
            frozenset(encoder.forbidden_ids),
            encoder.vocabulary,
            settings.weight_version,
        )

    async def reply(self, conversation: Conversation) -> Reply:
        """Generate the next turn of a conversation; append its ids to `Conversation.tokens`.

        Raises:
            PolicyUnavailableError: No server gave a reply to exactly this prompt in time.
            PolicyRefusedError: Every server rejected it, as it would any other.
        """
        begun = time.monotonic()
        ids = await asyncio.to_thread(prompt_ids, self._encoder.chat, conversation)
        limit = new_token_limit(self._rules.sampling, len(ids))
        made = _NOTHING
        if limit > 0:
            prompt = await asyncio.to_thread(self._prepare, conversation, ids)
            try:
                made = await self._generate(prompt, limit, conversation.seed)
            except PolicyUnavailableError:
                self._usage.count(failures=1)
                raise
        chat = self._encoder.chat
        conversation.tokens = extend_tokens(
            conversation,
            ids,
            made.ids,
            made.log_probabilities,
            images=len(images_of(conversation)),
            weight_versions=made.weight_versions,
        )
        seconds = time.monotonic() - begun
        return Reply(
            chat.decode(made.ids), not made.is_stopped, new_tokens=len(made.ids), seconds=seconds
        )

    async def score(
        self, ids: Sequence[int], images: Sequence[Image.Image], scored: Sequence[int]
    ) -> tuple[float, ...]:
        """Return log-probabilities of ids that exist, in the model's own distribution.

        They are those of temperature 1 without a bias, whatever the sampling parameters.

        Args:
            ids: Exact ids of a conversation, image tokens expanded.
            images: Its images, in order.
            scored: Indices of the ids to score, from 1 on.

        Returns:
            Log-probability of each scored id given all ids before it.

        Raises:
            PolicyUnavailableError: No server scored exactly these ids in time, or they and one new
                id are more than a server's context.
        """

        def prepare() -> Prompt:
            urls = [self._image_urls.url(image) for image in images]
            short = self._encoder.collapse(ids, images)
            return Prompt(tuple(ids), short, urls, seed=None, scored=scored)

        prompt = await asyncio.to_thread(prepare)
        made = await self._generate(prompt, 1, next(_NUMBERS))
        if not made.ids:
            raise PolicyUnavailableError(
                f"{len(ids)} tokens and one new one do not fit into the server's context"
            )
        return made.prompt_scores

    def _prepare(self, conversation: Conversation, ids: tuple[int, ...]) -> Prompt:
        """Return a conversation's prompt as it is sent."""
        images = images_of(conversation)
        seed = derive_seed("tokens", conversation.seed, conversation.turn)
        return Prompt(
            ids,
            self._encoder.collapse(ids, images),
            [self._image_urls.url(image) for image in images],
            seed if self._settings.seeds else None,
        )

    async def _generate(self, prompt: Prompt, limit: int, episode: int) -> Generated:
        """Request a reply from one server after another, within the limits of the settings.

        A server whose answer would be the same again is not asked again; one that failed is asked
        again only if there is no other.
        """
        failures, waited = 0, 0.0
        useless: set[Server] = set()
        last: Server | None = None
        error: PolicyUnavailableError | None = None
        while failures <= self._settings.max_retries and waited <= self._settings.patience_seconds:
            server = None
            if last is not None:
                server = self._servers.enter(episode, without={*useless, last})
            server = server or self._servers.enter(episode, without=useless)
            if server is None:
                rest = max(self._servers.seconds_left, _SHORTEST_SLEEP_SECONDS)
                await asyncio.sleep(rest)
                waited += rest
                continue
            self._usage.count(retries=int(last is not None))
            last, begun = server, time.monotonic()
            try:
                return await self._ask(server, prompt, limit)
            except (_UnreachableError, PausedError) as found:
                error = found
                failures += not self._servers.has_answered  # else waited for, as long as patience
                waited += min(time.monotonic() - begun, _LONGEST_WAIT_SECONDS)
            except (AnswerError, PolicyRefusedError) as found:
                error = found
                is_final = isinstance(found, PolicyRefusedError) or found.is_final
                failures += not is_final
                if is_final:
                    useless.add(server)
            finally:
                self._servers.leave(server)
            if len(useless) == len(self._servers.all):
                break
        raise error or PolicyUnavailableError(self._servers.reason)

    async def _ask(self, server: Server, prompt: Prompt, limit: int) -> Generated:
        """Send one request to one server, within its context length."""
        if not server.is_looked_up:
            await self._look_up(server)
        if server.context_length is not None:
            limit = min(limit, server.context_length - len(prompt.ids))
        if limit <= 0:
            return _NOTHING
        model = self._served_as.model
        body = request_body(prompt, limit, self._rules, model=model)
        content = await asyncio.to_thread(lambda: json.dumps(body).encode())
        response = await self._post(server, content)
        if response.status_code != _SUCCESS:
            raise self._failure(server, response)
        self._servers.succeeded(server)
        url = without_credentials(server.url)
        try:
            made = _named(read_answer(response.json(), prompt, limit, self._rules), model)
        except PausedError as error:
            self._servers.rest(server, f"{url}: {error}")
            raise PausedError(f"{url}: {error}") from error
        except AnswerError as error:
            if error.is_final:
                self._servers.failed(server, f"{url}: {error}")
            raise AnswerError(f"{url}: {error}", is_final=error.is_final) from error
        except (ValueError, OverflowError, RecursionError) as error:
            raise AnswerError(f"{url}: no JSON: {short(response.text)!r}") from error
        self._usage.count(
            prompt_tokens=len(prompt.ids), cached_tokens=made.cached or 0, new_tokens=len(made.ids)
        )
        return made

    def _failure(self, server: Server, response: httpx.Response) -> PolicyUnavailableError:
        """Return the error that the status of an answer stands for."""
        words = f"{without_credentials(server.url)}: {words_of(response, self._settings.api_key)}"
        if response.status_code == _PAUSED:
            self._servers.rest(server, words)
            return PausedError(words)
        if response.status_code in _OWN_FAULTS:
            return AnswerError(words, is_final=True)
        self._servers.failed(server, words)
        if is_refusal(response):
            return PolicyRefusedError(
                f"{words}; is it vLLM 0.32 or later, started with --enable-scale-out?"
            )
        return AnswerError(words)

    async def _post(self, server: Server, content: bytes) -> httpx.Response:
        """Send a request; it is sent again if the server had closed a connection that was kept."""
        import httpx

        url, seconds = without_credentials(server.url), self._settings.timeout_seconds
        headers = {"Content-Type": "application/json"}
        failure: PolicyUnavailableError | None = None
        for is_last in (False, True):
            self._usage.count(requests=1, retries=int(is_last))
            try:
                async with asyncio.timeout(seconds):
                    return await next(self._clients).post(
                        server.url + GENERATE_PATH, content=content, headers=headers
                    )
            except TimeoutError:
                failure = AnswerError(f"{url} gave no answer within {seconds:g} s")
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = _UnreachableError(f"{url} is unreachable: {short(str(error))}")
            except httpx.HTTPError as error:
                said = f"{type(error).__name__}: {short(str(error))}"
                failure = AnswerError(f"{url} broke off: {said}")
                if not is_last:
                    continue
            break
        failure = failure or _UnreachableError(f"{url} is unreachable")
        self._servers.failed(server, str(failure))
        raise failure

    async def _look_up(self, server: Server) -> None:
        """Read the context length that a server reports; it is back if it answers at all."""
        import httpx

        try:
            response = await next(self._clients).get(
                server.url + "/v1/models", timeout=_LOOK_UP_SECONDS
            )
        except httpx.HTTPError as error:
            said = short(str(error)) or type(error).__name__
            words = f"{without_credentials(server.url)} is unreachable: {said}"
            self._servers.failed(server, words)
            raise _UnreachableError(words) from error
        try:
            listed = response.json()["data"]
            named = [one for one in listed if one.get("id") == self._served_as.model] or listed[:1]
            lengths = [one.get("max_model_len") for one in named]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            lengths = []
        known = [length for length in lengths if type(length) is int and length > 0]
        server.context_length = min(known, default=None)
        if self._on_return is not None:
            try:
                await asyncio.to_thread(self._on_return, server.url)
            except PolicyUnavailableError as error:
                self._servers.failed(server, str(error))
                raise _UnreachableError(str(error)) from error
        server.is_looked_up = True


def _named(made: Generated, adapters: str | None) -> Generated:
    """Put the adapters' name, if there is one, before the versions of the base weights."""
    if adapters is None:
        return made
    spans = [replace(span, version=f"{adapters}@{span.version}") for span in made.weight_versions]
    return replace(made, weight_versions=tuple(spans))


class _UnreachableError(PolicyUnavailableError):
    """No connection to a server: the request was never sent."""
