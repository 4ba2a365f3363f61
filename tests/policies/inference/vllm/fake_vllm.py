"""A small fake of vLLM's interface over our own model: one request at a time, faults on demand.

It expands image placeholders as vLLM does, draws with the seed of the request, and runs the model
without our engine: a whole prefill, then a token at a time. Its replies are those that vLLM would
give if it computed exactly what we compute.
"""

import base64
import contextlib
import copy
import io
import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import torch
from codedance.policies.inference.sampling import choose
from codedance.policies.interface import Sampling
from codedance.policies.models.token_model import PicturedIds, TokenModel
from PIL import Image
from transformers.cache_utils import DynamicCache

Body = dict[str, Any]


@dataclass
class Faults:
    """What goes wrong: called with the number of a request, from 0, and its body.

    Attributes:
        status: Status and message of an error answer; None for none.
        before: Called before the reply is generated; it may wait or kill the server.
        change: Changes the answer; returns the text to send in place of JSON, or None.
    """

    status: Callable[[int, Body], tuple[int, str] | None] = lambda _, __: None
    before: Callable[[int, Body], None] = lambda _, __: None
    change: Callable[[int, Body], str | None] = lambda _, __: None


@dataclass(frozen=True)
class Drawn:
    """One reply of the fake."""

    ids: list[int]
    log_probabilities: list[float]
    reason: str


@dataclass
class FakeVllm:
    """A server on this machine that behaves as vLLM with ``--enable-scale-out``.

    Attributes:
        model: Model that it serves.
        resizes: Whether it resizes images again, as without ``{"do_resize": false}``.
        context: ``--max-model-len``.
        faults: What goes wrong.
        version: Version of the weights.
        bodies: Request bodies so far.
        most: Largest number of requests at the same time.
    """

    model: TokenModel
    resizes: bool = False
    context: int = 4096
    faults: Faults = field(default_factory=Faults)
    version: str = "default"
    bodies: list[Body] = field(default_factory=list)
    most: int = 0

    def __post_init__(self) -> None:
        processor = copy.deepcopy(self.model.pictures.processor)
        processor.do_resize = self.resizes
        self._served = TokenModel(self.model.model, self.model.chat.tokenizer, processor)
        self._lock = threading.Lock()
        self._now = 0
        self._begin(0)

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
            with self._lock:
                answer = self._generate(body)
            text = self.faults.change(number, answer)
            return 200, json.dumps(answer) if text is None else text
        finally:
            with self._lock:
                self._now -= 1

    def _generate(self, body: Body) -> Body:
        images = [_image(part["url"]) for part in body.get("content_parts", [])]
        ids = self.expand(body["token_ids"], images)
        params: Mapping[str, Any] = body["sampling_params"]
        drawn = self._draw(ids, images, params)
        content = [
            {"token_id": token, "logprob": score, "rank": 1, "top_logprobs": []}
            for token, score in zip(drawn.ids, drawn.log_probabilities, strict=True)
        ]
        span = {"version": self.version, "start": 0, "end": len(drawn.ids)}
        choice = {
            "index": 0,
            "finish_reason": drawn.reason,
            "stop_reason": None,
            "token_ids": drawn.ids,
            "weight_versions": [span],
            "logprobs": {"content": content},
        }
        usage = {"prompt_tokens": len(ids), "prompt_tokens_details": {"cached_tokens": 0}}
        return {
            "prompt_token_ids": ids if body.get("return_token_ids") else None,
            "usage": usage,
            "choices": [choice],
        }

    def expand(self, ids: Sequence[int], images: Sequence[Image.Image]) -> list[int]:
        """Replace one placeholder per image; any further ones stay, as in vLLM."""
        left = list(images)
        found: list[int] = []
        for token in ids:
            if left and token == self._served.chat.placeholder_id:
                found += self._served.chat.image_ids(left.pop(0))
            else:
                found.append(token)
        return found

    @torch.inference_mode()
    def _draw(
        self, ids: Sequence[int], images: Sequence[Image.Image], params: Mapping[str, Any]
    ) -> Drawn:
        model = self._served
        sampling = Sampling(params["temperature"], params["top_p"], params["top_k"])
        bias = torch.zeros(model.vocabulary)
        for token, value in params.get("logit_bias", {}).items():
            bias[int(token)] = value
        seed, limit = params.get("seed", 0), params["max_tokens"]
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(limit, generator=generator, dtype=torch.float64)
        batch = model.pad([PicturedIds(ids, images)])
        cache = DynamicCache()
        logits = model.logits(model.hidden(batch, cache=cache)[:, -1])
        position = batch.positions[0, :, -1] + 1
        everything = torch.ones(model.vocabulary, dtype=torch.bool)
        drawn, scores = list[int](), list[float]()
        while True:
            chosen = choose(logits + bias, uniform[len(drawn)][None], sampling, everything)
            scores.append(float(logits.log_softmax(-1)[0, chosen[0]]))
            drawn.append(int(chosen[0]))
            if drawn[-1] in params["stop_token_ids"] or any(
                text in model.chat.decode(drawn) for text in params.get("stop", ())
            ):
                return Drawn(drawn, scores, "stop")
            if len(drawn) == limit:
                return Drawn(drawn, scores, "length")
            seen = torch.ones(1, len(ids) + len(drawn), dtype=torch.bool)
            logits = model.step(chosen, position, seen, cache=cache)
            position = position + 1


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
            served = {"id": "fake", "max_model_len": fake.context}
            self._send(200, json.dumps({"object": "list", "data": [served]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/inference/v1/generate":
                self._send(404, '{"detail": "Not Found"}')
            else:
                self._send(*fake.answer(body))

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


def _image(url: str) -> Image.Image:
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
