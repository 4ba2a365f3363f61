"""A real HTTP server of OpenAI's chat completions on this machine, with the answers of a test."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from codedance.envs.types import Message
from codedance.policies.inference.endpoint import Endpoint
from codedance.policies.inference.openai_client import OpenAIPolicy
from codedance.policies.interface import Conversation

from ..tiny import noise

Answer = tuple[int, dict[str, str], str]


def completion(
    text: object, reason: str = "stop", *, usage: dict[str, int] | None = None, **more: Any
) -> Answer:
    """Return a completion; ``more`` are further fields of its choice."""
    choice = {"message": {"content": text}, "finish_reason": reason, **more}
    counted = {"completion_tokens": 7} if usage is None else usage
    return 200, {}, json.dumps({"choices": [choice], "usage": counted})


def counts(read: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": written}


class Server:
    """A real HTTP server on this machine; ``answer`` maps a request's body to a response.

    Args:
        protocol: ``HTTP/1.1`` to keep connections; ``ports`` are the clients' by request.
    """

    def __init__(self, protocol: str = "HTTP/1.0") -> None:
        self.ports: list[int] = []
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.answer: Callable[[dict[str, Any]], Answer] = lambda _: completion("hello")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = protocol

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {name.title(): value for name, value in self.headers.items()}
                outer.requests.append((self.path, body, headers))
                outer.ports.append(self.client_address[1])
                status, headers, text = outer.answer(body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the client has given up
                    self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@contextlib.contextmanager
def serving(protocol: str = "HTTP/1.0") -> Iterator[Server]:
    server = Server(protocol)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def asks(text: str, seed: int = 0) -> Conversation:
    return Conversation([Message("user", (noise(seed), text))], seed=seed)


def policy_of(server: Server, **options: Any) -> tuple[OpenAIPolicy, list[float]]:
    waits: list[float] = []
    key = {"api_key": options.pop("api_key")} if "api_key" in options else {}
    endpoint = Endpoint(**options)
    policy = OpenAIPolicy("m", base_url=server.url, sleep=waits.append, endpoint=endpoint, **key)
    return policy, waits
