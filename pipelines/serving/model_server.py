"""A small OpenAI-compatible HTTP server for any policy: ``codedance serve model``.

``GET /v1/models``, ``POST /v1/chat/completions`` (whole or streamed), ``GET /health``. Concurrent
requests are answered in one batch. A request that would wait behind too many others is rejected
with 429 and ``Retry-After``. For one machine and trusted users: no TLS, no quotas.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from ...policies.interface import Conversation, Policy
from ...policies.seeds import derive_seed
from .batcher import Batcher, Job
from .chat_replies import ChatReply
from .chat_requests import ChatRequest, read_request
from .reply_writer import Delta
from .request_error import RequestError
from .token_records import TokenRecords

_LARGEST_BODY = 64 * 2**20
_PATIENCE_SECONDS = 120.0  # with a client that is sending, or keeps an idle connection
_CLOSING_SECONDS = 10.0  # until requests in progress are cancelled
_LAST_SECONDS = 5  # until connections to clients that do not read are cut
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

_Result = TypeVar("_Result")


class ModelServer:
    """Serves a policy over HTTP within the context.

    Args:
        policy: Policy that answers.
        host: Host to listen on.
        port: Port to listen on; 0 for any free one.
        name: Name of the model; None for the policy's id.
        api_key: API key that requests must send as a bearer token; None for no key.
        batcher: Batcher of the requests; None for the default one.

    Raises:
        OSError: The address is in use, or not one of this machine.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        name: str | None = None,
        api_key: str | None = None,
        batcher: Batcher | None = None,
    ) -> None:
        self.name = name or policy.id
        self.policy = policy
        self.api_key = api_key
        self._socket = _listen(host, port)
        self.batcher = batcher or Batcher(policy)
        self._records = TokenRecords()
        self._numbers = itertools.count()  # of requests, for the seeds of those that name none
        config = uvicorn.Config(
            self._app(),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(_PATIENCE_SECONDS),
            timeout_graceful_shutdown=int(_CLOSING_SECONDS) + _LAST_SECONDS,
        )
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([self._socket],), name="model-server-http", daemon=True
        )
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(_CLOSING_SECONDS)
        self.batcher.cancel()
        self._thread.join()
        self._socket.close()
        self.batcher.close()

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)  # neither schema nor pages that load from elsewhere
        guarded = APIRouter(dependencies=[Depends(self._check_key)])
        app.get("/health")(_health)
        for end in ("", "/"):
            guarded.get(f"/v1/models{end}", response_model=None)(self._models)
            guarded.post(f"/v1/chat/completions{end}", response_model=None)(self._chat)
        guarded.api_route("/{path:path}", methods=_METHODS, response_model=None)(_nothing)
        app.include_router(guarded)
        app.add_exception_handler(RequestError, _refuse)
        app.add_exception_handler(HTTPException, _refuse)
        app.add_exception_handler(Exception, _refuse)
        return app

    async def _check_key(self, request: Request) -> None:
        given = request.headers.get("Authorization", "")
        wanted = f"Bearer {self.api_key}"
        if self.api_key and not hmac.compare_digest(given.encode(), wanted.encode()):
            raise RequestError("wrong or no API key", status=401, kind="authentication_error")

    async def _models(self) -> Response:
        one = {"id": self.name, "object": "model", "created": 0, "owned_by": "codedance"}
        return _json({"object": "list", "data": [one]})

    async def _chat(self, request: Request) -> Response:
        asked = await run_in_threadpool(read_request, await _body(request))
        if asked.model not in (None, self.name):
            raise RequestError(
                f"the model {asked.model!r} is not served; the served model is {self.name!r}",
                status=404,
                parameter="model",
            )
        own_prompt: str | None = getattr(self.policy, "system_prompt", None)
        seed = derive_seed("serve", next(self._numbers))
        conversations = asked.conversations(own_prompt, seed=seed)
        is_seeded = asked.seed is not None
        await run_in_threadpool(self._records.find, conversations, is_seeded=is_seeded)
        deltas = self._deltas(asked, conversations)
        token_text = self._token_text if asked.logprobs else None
        reply = ChatReply(self.name, token_text, names_stop=bool(asked.stop))
        if not asked.stream:
            return _json(reply.whole(await _unless_gone(request, _all(deltas))))
        # An error before the first token is one of the request, with its status.
        first = await _unless_gone(request, _next(deltas))
        events = _events(reply, first, deltas, with_usage=asked.stream_options.include_usage)
        headers = {"Cache-Control": "no-cache"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _deltas(
        self, asked: ChatRequest, conversations: list[Conversation]
    ) -> AsyncGenerator[Delta, None]:
        """Yield the replies in parts; the job is released however this ends."""
        loop, parts = asyncio.get_running_loop(), asyncio.Queue[Delta | RequestError]()

        def send(part: Delta | RequestError) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
                loop.call_soon_threadsafe(parts.put_nowait, part)

        keeps_stop = asked.include_stop_str_in_output
        job = Job(conversations, asked.sampling, send, asked.stop, asked.stream, keeps_stop)
        self.batcher.submit(job)
        try:
            unfinished = len(conversations)
            while unfinished:
                part = await parts.get()
                if isinstance(part, RequestError):
                    raise part
                if part.end is not None:
                    unfinished -= 1
                    if part.end.reply is not None:
                        answered = conversations[part.choice], part.end.reply
                        is_seeded = asked.seed is not None
                        keep = self._records.keep
                        await run_in_threadpool(keep, [answered], is_seeded=is_seeded)
                yield part
        finally:
            self.batcher.release(job)

    def _token_text(self, token: int) -> str:
        tokenizer: Any = self.policy.model.chat.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
        return str(tokenizer.decode([token], skip_special_tokens=False))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while ")[0]
        raise OSError(
            f"cannot listen at {host}:{port} ({reason}): choose another with --host or --port"
        ) from error


async def _health() -> Response:
    return _json({"status": "ok"})


async def _nothing(request: Request) -> Response:
    raise RequestError(f"nothing at {request.method} {request.url.path}", status=404)


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        error = RequestError(str(error.detail), status=error.status_code)
    elif not isinstance(error, RequestError):
        said = f"{type(error).__name__}: {error}"
        error = RequestError(said, status=500, kind="server_error")
    headers = {"Connection": "close"} if error.status in (408, 413) else {}
    if error.retry_seconds is not None:
        headers["Retry-After"] = str(error.retry_seconds)
    return _json(error.body(), status=error.status, headers=headers)


def _json(
    body: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(json.dumps(body), status, headers, media_type="application/json")


async def _body(request: Request) -> bytearray:
    data = bytearray()
    length = request.headers.get("Content-Length", "0")
    is_fit = length.isdecimal() and int(length) <= _LARGEST_BODY
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            parts = request.stream()
            while is_fit and (part := await anext(parts, None)) is not None:
                data += part
                is_fit = len(data) <= _LARGEST_BODY
    except TimeoutError as error:
        raise RequestError("the body did not arrive in time", status=408) from error
    if not is_fit:
        raise RequestError(f"the body must have at most {_LARGEST_BODY} bytes", status=413)
    return data


async def _all(deltas: AsyncIterator[Delta]) -> list[Delta]:
    return [one async for one in deltas]


async def _next(deltas: AsyncIterator[Delta]) -> Delta:
    return await anext(deltas)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return the result of work, which is cancelled if the client disconnects before."""

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.create_task(work), asyncio.create_task(leave())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise RequestError("the client has disconnected", status=499)
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _events(
    reply: ChatReply, first: Delta, deltas: AsyncGenerator[Delta, None], *, with_usage: bool
) -> AsyncGenerator[str, None]:
    """Yield server-sent events; an error ends them with an event that OpenAI's client raises."""

    def event(body: dict[str, Any]) -> str:
        return f"data: {json.dumps(body)}\n\n"

    try:
        for chunk in reply.chunks(first, with_usage=with_usage):
            yield event(chunk)
        async for delta in deltas:
            for chunk in reply.chunks(delta, with_usage=with_usage):
                yield event(chunk)
        if with_usage:
            yield event(reply.usage_chunk())
    except RequestError as error:
        yield event(error.body())
    finally:
        await deltas.aclose()
    yield "data: [DONE]\n\n"
