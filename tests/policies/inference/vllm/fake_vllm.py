"""A small fake of vLLM's interface over our own model: faults on demand, weights that follow.

Its replies are those that vLLM would give if it computed exactly what we compute.
"""

import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from codedance.policies.models.token_model import TokenModel

from .fake_engine import FakeEngine, TooLongError

Body = dict[str, Any]
CONTROL_READS = ("/weight_info", "/server_info", "/get_world_size", "/is_sleeping")
MEMORY = ("weights", "kv_cache")


@dataclass
class Faults:
    """What goes wrong: called with the number of a request, from 0, and its body.

    Attributes:
        status: Status and message of an error answer; None for none.
        before: Called before the reply is generated; it may wait or kill the server.
        change: Changes the answer; returns the text to send in place of JSON, or None.
        control: Status and message of an error answer of a control route; None for none. It may
            wait or kill the server.
    """

    status: Callable[[int, Body], tuple[int, str] | None] = lambda _, __: None
    before: Callable[[int, Body], None] = lambda _, __: None
    change: Callable[[int, Body], str | None] = lambda _, __: None
    control: Callable[[str], tuple[int, str] | None] = lambda _: None


@dataclass
class FakeVllm:
    """A server on this machine that behaves as vLLM with ``--enable-scale-out``.

    Attributes:
        model: Model that it serves.
        resizes: Whether it resizes images again, as without ``{"do_resize": false}``.
        context: ``--max-model-len``.
        logprobs_mode: ``--logprobs-mode``.
        faults: What goes wrong.
        has_control: Whether the control routes are there, as in vLLM's dev mode.
        forgets: Caches that are emptied when told to.
        listed: What ``/v1/models`` lists; None for this model alone.
        bodies: Request bodies so far.
        keys: Authorization of each request.
        most: Largest number of requests at the same time.
        calls: Control routes that were called, in order.
        is_paused: Whether it takes no requests.
        joined: Groups for weight transfer that it was told to join.
        can_sleep: Whether it was started with ``--enable-sleep-mode``.
        asleep: Parts of its memory that it has released.
        naps: Number of times that it fell asleep.
    """

    model: TokenModel
    resizes: bool = False
    context: int = 4096
    logprobs_mode: str = "processed_logprobs"
    faults: Faults = field(default_factory=Faults)
    has_control: bool = True
    forgets: tuple[str, ...] = ("prefix", "mm", "encoder")
    listed: list[dict[str, Any]] | None = None
    bodies: list[Body] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most: int = 0
    calls: list[str] = field(default_factory=list)
    is_paused: bool = False
    joined: list[Body] = field(default_factory=list)
    can_sleep: bool = True
    asleep: list[str] = field(default_factory=list)
    naps: int = 0

    def __post_init__(self) -> None:
        self.engine = self._engine()
        self._lock = threading.Lock()
        self._now = 0
        self._begin(0)

    def _engine(self) -> FakeEngine:
        return FakeEngine(
            self.model,
            context=self.context,
            resizes=self.resizes,
            logprobs_mode=self.logprobs_mode,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """Refuse connections from now on, and break off those that are open."""
        if self._http is None:
            return
        http, self._http = self._http, None
        http.shutdown()
        http.server_close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def restart(self) -> None:
        """Listen again at the same address."""
        self._begin(self.port)

    def reborn(self) -> None:
        """Listen again as a new process, which has the weights and names that it began with."""
        self.engine = self._engine()
        self.is_paused = False
        self.asleep = []
        self.restart()

    def control(self, path: str, body: Body) -> tuple[int, str]:
        """Answer a control route; every call is recorded."""
        route, _, query = path.partition("?")
        self.calls.append(path)
        if (error := self.faults.control(path)) is not None:
            return error[0], json.dumps({"error": {"message": error[1]}})
        config = {"model_config": {"enable_sleep_mode": self.can_sleep}, "parallel_config": {}}
        work: dict[str, Callable[[], object]] = {
            "/weight_info": lambda: {"weight_version": self.engine.version},
            "/server_info": lambda: {"vllm_config": config},
            "/sleep": self._sleep,
            "/wake_up": lambda: self._wake_up(parse_qs(query).get("tags", MEMORY)),
            "/is_sleeping": lambda: {"is_sleeping": bool(self.asleep) or self.is_paused},
            "/pause": lambda: setattr(self, "is_paused", True),
            "/resume": self._resume,
            "/update_weight_version": lambda: setattr(self.engine, "version", body["new_version"]),
            "/collective_rpc": lambda: self._loaded(body["kwargs"]["weights_path"]),
            "/get_world_size": lambda: {"world_size": 2},
            "/init_weight_transfer_engine": lambda: self._join(body["init_info"]),
            "/start_weight_update": lambda: None,
            "/update_weights": lambda: self.engine.receive(body["update_info"]),
            "/finish_weight_update": lambda: setattr(
                self.engine, "version", body["weight_version"]
            ),
            "/v1/load_lora_adapter": lambda: self._adapted(body["lora_name"], body["lora_path"]),
            "/v1/unload_lora_adapter": lambda: self.engine.unload_adapters(body["lora_name"]),
        }
        for cache in ("prefix", "mm", "encoder"):
            work[f"/reset_{cache}_cache"] = lambda name=cache: (
                self.engine.forget(name) if name in self.forgets else None
            )
        with self._lock:
            try:
                return 200, json.dumps(work[route]())
            except (ValueError, MemoryError) as error:
                status = 400 if "lora" in route and isinstance(error, ValueError) else 500
                return status, json.dumps({"error": {"message": str(error)}})

    def _join(self, group: Body) -> None:
        """Join a group, in which nothing of an earlier one arrives."""
        self.joined.append(group)
        self.engine.inbox = queue.Queue()

    def _sleep(self) -> None:
        """Release memory; the caches are emptied, and requests wait from now on."""
        self.naps += not self.asleep
        self.asleep = list(MEMORY)
        for cache in ("prefix", "mm", "encoder"):
            self.engine.forget(cache)

    def _wake_up(self, parts: Iterable[str]) -> None:
        self.asleep = [one for one in self.asleep if one not in parts]
        self.is_paused = self.is_paused and bool(self.asleep)

    def _resume(self) -> None:
        if self.asleep:
            raise MemoryError(f"CUDA error: an illegal memory access ({self.asleep} is released)")
        self.is_paused = False

    def _loaded(self, folder: str) -> None:
        self._need_weights()
        self.engine.load(folder)

    def _adapted(self, name: str, folder: str) -> None:
        self._need_weights()
        self.engine.load_adapters(name, folder)

    def _need_weights(self) -> None:
        if "weights" in self.asleep:
            raise MemoryError("CUDA error: an illegal memory access (weights are released)")

    def _begin(self, port: int) -> None:
        self._open: set[socket.socket] = set()
        self._http: ThreadingHTTPServer | None = _Http(("127.0.0.1", port), _handler(self))
        self.port = self._http.server_port
        serve = self._http.serve_forever
        threading.Thread(target=serve, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def answer(self, body: Body) -> tuple[int, str]:
        """Return status and text of the answer to a request."""
        with self._lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            if not 0.0 <= body["sampling_params"]["temperature"] <= 2.0:
                return 400, '{"error": {"message": "temperature must be in [0, 2]"}}'
            self.faults.before(number, body)
            if (error := self.faults.status(number, body)) is not None:
                return error[0], json.dumps({"error": {"message": error[1]}})
            while self.asleep and self._http is not None:
                time.sleep(0.01)  # vLLM queues what comes while it sleeps
            try:
                with self._lock:
                    if self.is_paused:
                        return 503, '{"error": {"message": "Generation is paused"}}'
                    answer = self.engine.generate(body)
            except LookupError as error:
                return 404, json.dumps({"error": {"message": str(error)}})
            except TooLongError:
                return 400, '{"error": {"message": "longer than the maximum model length"}}'
            text = self.faults.change(number, answer)
            return 200, json.dumps(answer) if text is None else text
        finally:
            with self._lock:
                self._now -= 1


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error."""


def _handler(fake: FakeVllm) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            fake.opened(self.connection)

        def finish(self) -> None:
            fake.closed(self.connection)
            super().finish()

        def do_GET(self) -> None:
            if self.path.startswith(CONTROL_READS):
                answer = fake.control(self.path, {}) if fake.has_control else (404, "{}")
                self._send(*answer)
                return
            served = [{"id": "fake", "max_model_len": fake.context}]
            listed = served if fake.listed is None else fake.listed
            self._send(200, json.dumps({"object": "list", "data": listed}))

        def do_POST(self) -> None:
            fake.keys.append(self.headers.get("Authorization"))
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size) or "{}")
            if self.path == "/inference/v1/generate":
                self._send(*fake.answer(body))
            elif fake.has_control:
                self._send(*fake.control(self.path, body))
            else:
                self._send(404, '{"detail": "Not Found"}')

        def _send(self, status: int, text: str) -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Be quiet."""

    return Handler
