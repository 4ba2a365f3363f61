"""A fake model server over real HTTP that rejects requests as configured."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = "<think>I see.</think>\n<answer>3</answer>"


class ModelFake:
    """Records the questions; ``refusal`` determines the error responses.

    Attributes:
        asked: Questions, in order of arrival.
        refusal: Function of a question and the headers (in any case); returns None, or status and
            body.
    """

    def __init__(self):
        self.asked = []
        self.refusal = lambda question, headers: None
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, text = outer.answer(body, self.headers)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, body, headers):
        (question,) = [
            part["text"] if isinstance(part, dict) and part["type"] == "text" else str(part)
            for part in body["messages"][1]["content"][-1:]
        ]
        with self._lock:
            self.asked.append(question)
            refused = self.refusal(question, headers)
        if refused is not None:
            status, text = refused
            return status, text.encode()
        choice = {"message": {"content": ANSWER}, "finish_reason": "stop"}
        return 200, json.dumps({"choices": [choice]}).encode()


@contextlib.contextmanager
def model_fake():
    """Serve until the context ends."""
    fake = ModelFake()
    thread = threading.Thread(target=fake.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.http.shutdown()
        thread.join()
        fake.http.server_close()


class Refusing:
    """Rejects the requests with the given numbers, counted from 0."""

    def __init__(self, numbers, status=400, text="no"):
        self._numbers, self._answer = set(numbers), (status, text)
        self._count = -1

    def __call__(self, question, headers):
        self._count += 1
        return self._answer if self._count in self._numbers else None
