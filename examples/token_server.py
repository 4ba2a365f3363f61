"""The engine of the verifiers example: vLLM's route of exact ids, over weights that are trained.

``POST /inference/v1/generate`` takes exact ids and images and returns exact ids with their
log-probabilities. Concurrent requests are generated in one batch. A real run uses vLLM instead.
"""

import hashlib
import json
import queue
import sys
import threading
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from codedance.policies import load_policy
from codedance.policies.adapters.wire_messages import read_image
from codedance.policies.inference.engine import Prompt, Slots
from codedance.policies.interface import Sampling

MOST, GATHER_SECONDS = 64, 0.02


class Http(ThreadingHTTPServer):
    """A server whose queue holds a batch of requests that come at once; by default it holds 5."""

    daemon_threads = True
    request_queue_size = 2 * MOST


class TokenServer:
    """Serves a policy's model, as it is at the time, within the context."""

    def __init__(self, policy, *, seed=0, port=0):
        self.policy, self.seed = policy, seed
        self._asked, self._counts = queue.SimpleQueue(), {}
        self._http = Http(("127.0.0.1", port), handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._threads = [
            threading.Thread(target=self._http.serve_forever, daemon=True),
            threading.Thread(target=self._generate, daemon=True),
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()
        self._asked.put(None)
        for thread in self._threads:
            thread.join()

    def answer(self, body):
        """Return the answer to a request."""
        model = self.policy.model
        images = [read_image(part["url"]) for part in body.get("content_parts", [])]
        ids, places, left = [], [], iter(images)
        for token in body["token_ids"]:
            own = model.chat.image_ids(next(left)) if token == model.chat.image_id else (token,)
            if token == model.chat.image_id:
                places.append({"offset": len(ids), "length": len(own)})
            ids += own
        limit = body["sampling_params"].get("max_tokens") or Sampling().max_new_tokens
        done = Future()
        self._asked.put((Prompt(tuple(ids), images, self._seed(ids), 0, limit), done))
        written = done.result()
        content = [
            {"token": f"token_id:{token}", "logprob": score}
            for token, score in zip(written.ids, written.log_probabilities, strict=True)
        ]
        choice = {"index": 0, "finish_reason": "stop" if written.is_finished else "length"}
        choice |= {"token_ids": written.ids, "logprobs": {"content": content}}
        found = {"prompt_token_ids": ids, "mm_placeholders": {"image": places}}
        return found | {"request_id": "", "choices": [choice]}

    def _seed(self, ids):
        """Return another seed each time a prompt is asked for, whatever the order of requests."""
        name = hashlib.sha256(str(ids).encode()).hexdigest()
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return int(hashlib.sha256(f"{self.seed} {name} {count}".encode()).hexdigest()[:12], 16)

    def _generate(self):
        """Generate in batches that requests join at any token."""
        while (first := self._asked.get()) is not None:
            slots = Slots(self.policy.model, Sampling(), count=MOST)
            open_ones = self._join(slots, [first])
            while open_ones:
                for written in slots.advance():
                    open_ones.pop(id(written))[1].set_result(written)
                open_ones |= self._join(slots, [])

    def _join(self, slots, waiting):
        try:
            while len(waiting) < slots.free:
                waiting.append(self._asked.get(timeout=GATHER_SECONDS if waiting else 0.0))
        except queue.Empty:
            pass
        if None in waiting:
            self._asked.put(None)
        asked = [one for one in waiting if one is not None]
        written = slots.join([prompt for prompt, _ in asked]) if asked else []
        return {id(one): (one, done) for one, (_, done) in zip(written, asked, strict=True)}


def handler(server):
    """Return the class that answers HTTP requests for a server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            card = {"id": self.server.server_name, "object": "model"}
            self._send({"object": "list", "data": [card]})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(server.answer(json.loads(body)))

        def _send(self, value):
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            """Print nothing."""

    return Handler


def main():
    """Serve the shipped nano model at a port, until the process is ended."""
    with TokenServer(load_policy("nano"), port=int(sys.argv[1])):
        threading.Event().wait()


if __name__ == "__main__":
    main()
