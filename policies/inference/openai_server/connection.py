"""OpenAI's own client in an event loop of its own, for any thread and any other event loop.

A pool of connections belongs to one event loop. Rollouts open a loop each, and a single reply one
too; so the client lives in a loop of its own, in a thread, from the first request until it is
closed or nobody refers to it any more. Its own retries are off: ours obey rate limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from ...interface import PolicyRefusedError
from ..server_words import Answered, short, without_credentials

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_KEEP_ALIVE_SECONDS = 2.0  # vLLM closes an idle connection after 5
_CLOSING_SECONDS = 10.0
_NO_KEY = "none"  # the client insists on one; it is not sent

_Result = TypeVar("_Result")


class NoAnswerError(Exception):
    """A server gave no answer: unreachable, broken off, or not within the time."""


class Connection:
    """Connections to one server, opened with the first request.

    Args:
        url: Base URL.
        key: API key; empty for none.
        timeout_seconds: Longest time per request.
        concurrency: Number of concurrent requests.

    Raises:
        ValueError: OpenAI's client is not installed.
    """

    def __init__(self, url: str, *, key: str, timeout_seconds: float, concurrency: int) -> None:
        if find_spec("openai") is None:
            raise ValueError(
                "a model behind a server needs OpenAI's client, which is not installed: "
                "pip install 'codedance[server]'"
            )
        self._url = url
        self._key = key
        self._timeout = timeout_seconds
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._finalizer: Callable[[], object] = lambda: None

    def submit(self, work: Callable[[Link], Coroutine[Any, Any, _Result]]) -> Future[_Result]:
        """Run a coroutine in the client's event loop; cancelling the future cancels it.

        Raises:
            PolicyRefusedError: The client rejects the address.
        """
        with self._lock:
            if self._worker is None:
                link = Link(self._client(), self._key, self._timeout, self._concurrency)
                self._worker = _Worker(link)
                self._finalizer = weakref.finalize(self, self._worker.stop)
            return self._worker.submit(work)

    def close(self) -> None:
        """Cancel what is under way and close all connections; another request opens new ones."""
        with self._lock:
            self._worker = None
            self._finalizer()

    def _client(self) -> AsyncOpenAI:
        import openai

        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(
            max_connections=None, keepalive_expiry=_KEEP_ALIVE_SECONDS
        )
        try:
            return openai.AsyncOpenAI(
                base_url=self._url,
                api_key=self._key or _NO_KEY,
                max_retries=0,
                timeout=None,  # `Link.post` limits the whole request
                http_client=openai.DefaultAsyncHttpxClient(
                    follow_redirects=False, limits=limits, timeout=None
                ),
            )
        except Exception as error:  # its HTTP library's, which depends on the release
            raise PolicyRefusedError(
                f"{without_credentials(self._url)} is no address of a server "
                f"({type(error).__name__}: {short(str(error))})"
            ) from error


class Link:
    """The client as the coroutines in its event loop use it.

    Attributes:
        slots: Semaphore of the concurrent requests.
    """

    def __init__(self, client: AsyncOpenAI, key: str, timeout: float, concurrency: int) -> None:
        self.slots = asyncio.Semaphore(concurrency)
        self.client = client
        self._key = key
        self._timeout = timeout

    async def post(self, body: Mapping[str, Any]) -> Answered:
        """Request a chat completion; return the response, whatever its status.

        Args:
            body: Fields of the request; those that OpenAI does not know are in ``extra_body``.

        Raises:
            NoAnswerError: There is no response.
        """
        import openai

        headers: Any = {} if self._key else {"Authorization": openai.Omit()}
        create: Any = self.client.chat.completions.with_raw_response.create
        try:
            async with asyncio.timeout(self._timeout):
                answer = await create(**body, extra_headers=headers)
        except openai.APIStatusError as error:
            return error.response
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise NoAnswerError(f"{type(cause).__name__}: {short(str(cause))}") from error
        except TimeoutError as error:
            raise NoAnswerError(f"no answer within {self._timeout:g} s") from error
        return answer.http_response


class _Worker:
    """The thread with the client's event loop."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="openai-client", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Link], Coroutine[Any, Any, _Result]]) -> Future[_Result]:
        return asyncio.run_coroutine_threadsafe(work(self._link), self._loop)

    def stop(self) -> None:
        """End the thread once everything is cancelled and closed."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stopping.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        with self._runner as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._stopping.wait()
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._link.client.close()
