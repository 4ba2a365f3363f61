"""A small OpenAI-compatible HTTP server for any policy: ``codedance serve model``.

``GET /v1/models``, ``POST /v1/chat/completions``, ``GET /health``. Concurrent requests are answered
in one batch. A request that would wait behind too many others is rejected with 429 and
``Retry-After``. For one machine and trusted users: no TLS, no quotas.
"""

from __future__ import annotations

import hmac
import json
import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from ...policies.interface import Conversation, Policy, PolicyUnavailableError, Reply, Sampling
from .chat_requests import RequestError, completion, read_request
from .token_records import TokenRecords

_log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.01
_LARGEST_BODY = 64 * 2**20

Answered = list[tuple[Conversation, Reply]]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Conversations of one request, and the future of their replies."""

    conversations: list[Conversation]
    sampling: Sampling
    done: Future[Answered] = field(default_factory=Future[Answered])


class Batcher:
    """Answers requests in batches, in one thread; a batch has one set of sampling parameters.

    Args:
        policy: Policy that answers.
        batch_size: Conversations answered at once.
        most_waiting: Maximum number of open requests; more are rejected.
    """

    def __init__(self, policy: Policy, *, batch_size: int = 32, most_waiting: int = 128) -> None:
        self._policy = policy
        self._batch_size = batch_size
        self._most_waiting = most_waiting
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._lock = threading.Lock()
        self._open = 0
        self._thread = threading.Thread(target=self._work, name="model-server", daemon=True)
        self._thread.start()

    def answer(self, conversations: list[Conversation], sampling: Sampling) -> Answered:
        """Return the reply to each conversation; block until it is ready.

        Raises:
            RequestError: Too many requests wait already (429), or the policy failed (500, 503).
        """
        with self._lock:
            if self._open >= self._most_waiting:
                raise RequestError(
                    f"{self._open} requests are waiting already; retry later",
                    status=429,
                    kind="rate_limit_error",
                    retry_seconds=1,
                )
            self._open += 1
        try:
            job = _Job(conversations, sampling)
            self._jobs.put(job)
            return job.done.result()
        finally:
            with self._lock:
                self._open -= 1

    def close(self) -> None:
        """Stop the thread once all waiting requests are answered."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        kept: _Job | None = None
        while (first := kept or self._jobs.get()) is not None:
            batch, kept, is_last = self._gather(first)
            self._reply(batch)
            if is_last and kept is None:
                return

    def _gather(self, first: _Job) -> tuple[list[_Job], _Job | None, bool]:
        """Return the jobs to answer with the first, one that has to wait, and whether to stop."""
        batch, end = [first], time.monotonic() + _GATHER_SECONDS
        while sum(len(job.conversations) for job in batch) < self._batch_size:
            try:
                job = self._jobs.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return batch, None, True
            if job.sampling != first.sampling:
                return batch, job, False
            batch.append(job)
        return batch, None, False

    def _reply(self, batch: list[_Job]) -> None:
        conversations = [one for job in batch for one in job.conversations]
        try:
            replies = self._policy.reply(conversations, sampling=batch[0].sampling)
        except Exception as error:  # noqa: BLE001 - the server survives the failure of a request
            _log.exception("the policy failed")
            is_away = isinstance(error, PolicyUnavailableError)
            failure = RequestError(
                f"{type(error).__name__}: {error}",
                status=503 if is_away else 500,
                kind="server_error",
                retry_seconds=1 if is_away else None,
            )
            for job in batch:
                job.done.set_exception(failure)
            return
        pairs = iter(zip(conversations, replies, strict=True))
        for job in batch:
            job.done.set_result([next(pairs) for _ in job.conversations])


class ModelServer:
    """Serves a policy over HTTP within the context.

    Args:
        policy: Policy that answers.
        host: Host to listen on.
        port: Port to listen on; 0 for any free one.
        name: Name of the model; None for the policy's id.
        api_key: API key that requests must send as a bearer token; None for no key.
        batcher: Batcher of the requests; None for the default one.
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
        self.batcher = batcher or Batcher(policy)
        self._records = TokenRecords()
        outer = self

        class Handler(_Handler):
            server_of = outer

        try:
            self._http = ThreadingHTTPServer((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OSError(
                f"cannot listen at {host}:{port} ({reason}): choose another with --host or --port"
            ) from error
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self.batcher.close()

    def chat(self, body: object) -> dict[str, Any]:
        """Answer the body of a chat request.

        Raises:
            RequestError: The request is invalid, or the policy failed.
        """
        request = read_request(body)
        model = body.get("model", self.name) if isinstance(body, dict) else self.name
        if model != self.name:
            raise RequestError(
                f"the model {model!r} is not served; the served model is {self.name!r}",
                status=404,
                parameter="model",
            )
        own_prompt: str | None = getattr(self.policy, "system_prompt", None)
        conversations = request.conversations(own_prompt)
        self._records.find(conversations)
        answered = self.batcher.answer(conversations, request.sampling)
        self._records.keep(answered)
        return completion(self.name, request, answered, self._token_text)

    def models(self) -> dict[str, Any]:
        """Return the list of models, which has one entry."""
        one = {"id": self.name, "object": "model", "created": 0, "owned_by": "codedance"}
        return {"object": "list", "data": [one]}

    def _token_text(self, token: int) -> str:
        tokenizer: Any = self.policy.model.chat.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
        return str(tokenizer.decode([token], skip_special_tokens=False))


class _Handler(BaseHTTPRequestHandler):
    """Handler of one request, in its own thread."""

    server_of: ModelServer
    protocol_version = "HTTP/1.1"
    server_version = "codedance"
    timeout = 120.0

    def do_GET(self) -> None:
        """Answer requests for the list of models and for the health check."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Answer a chat completion."""
        self._answer(self._post)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Log at debug level."""
        _log.debug(format, *args)

    def _get(self) -> dict[str, Any]:
        if self.path == "/health":
            return {"status": "ok"}
        self._check_key()
        if self.path.rstrip("/") == "/v1/models":
            return self.server_of.models()
        raise RequestError(f"nothing at GET {self.path}", status=404)

    def _post(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LARGEST_BODY:
            self.close_connection = True
            raise RequestError(
                f"the body must have a Content-Length of at most {_LARGEST_BODY} bytes", status=413
            )
        data = self.rfile.read(int(length))
        self._check_key()
        if self.path.rstrip("/") != "/v1/chat/completions":
            raise RequestError(f"nothing at POST {self.path}", status=404)
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the body is not valid JSON: {error}") from error
        return self.server_of.chat(body)

    def _check_key(self) -> None:
        wanted = self.server_of.api_key
        given = self.headers.get("Authorization", "")
        if wanted and not hmac.compare_digest(given.encode(), f"Bearer {wanted}".encode()):
            raise RequestError("wrong or no API key", status=401, kind="authentication_error")

    def _answer(self, make: Any) -> None:  # noqa: ANN401 - a method of this class
        status, extra = 200, {}
        try:
            body = make()
        except RequestError as error:
            status, body = error.status, error.body()
            if error.retry_seconds is not None:
                extra = {"Retry-After": str(error.retry_seconds)}
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **extra}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # the client has disconnected
            self.close_connection = True
