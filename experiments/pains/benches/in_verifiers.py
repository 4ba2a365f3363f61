"""verifiers' environment, agent, interception server and training client, with a tool.

The model is any server with vLLM's route of exact ids; prompts are made by verifiers' own renderer
of Qwen3-VL, with the nano model's tokenizer and the control tokens that the renderer asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from transformers import AutoTokenizer
from verifiers.v1.clients import ModelContext, TrainClientConfig
from verifiers.v1.utils.loaders import load_environment, resolve_env_config

from .tiny_model import NANO, load_processor, picture

sys.path.insert(0, str(Path(__file__).parent))
import looking

TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


def tokenizer_folder(folder):
    """Write the nano model's tokenizer with the renderer's control tokens; return the folder."""
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    tokenizer.add_tokens(list(TOKENS), special_tokens=True)
    tokenizer.save_pretrained(folder)
    return folder


def make_environment(questions, look, score=None, *, seconds=None):
    """Return verifiers' environment with a tool.

    Args:
        questions: Text and images of each question; None for one about an image.
        look: The tool.
        score: Function of a trace; None for a reward of 1.
        seconds: verifiers' time limit of an agent.
    """
    questions = [one or [picture(), "How many bars?"] for one in questions]
    looking.SETTINGS.update(questions=questions, look=look, score=score)
    agent = {"runtime": {"type": "subprocess"}, "timeout": {"rollout": seconds}}
    return load_environment(resolve_env_config({"taskset": {"id": "looking"}, "agent": agent}))


def client_of(folder, url, *, renderer="qwen3-vl"):
    """Return the training client of a server with vLLM's route of exact ids."""
    config = TrainClientConfig(
        base_url=f"{url}/v1", renderer={"name": renderer}, renderer_model_name=str(folder)
    )
    return ModelContext(model="fake", client=config)


def play(environment, context):
    """Run an episode on each task, all at the same time; return verifiers' episodes."""

    async def run():
        async with environment.serving():
            tasks = list(environment.taskset)
            return await asyncio.gather(*(environment.run_episode(one, context) for one in tasks))

    return asyncio.run(run())


def play_often(environment, context, count, between):
    """Run all tasks ``count`` times while verifiers serves once, as in a long run."""

    async def run():
        async with environment.serving():
            tasks = list(environment.taskset)
            for number in range(count):
                await asyncio.gather(*(environment.run_episode(one, context) for one in tasks))
                between(number)

    asyncio.run(run())


def scratch():
    """Return a new folder with the tokenizer."""
    return tokenizer_folder(tempfile.mkdtemp())


def renderer():
    """Return verifiers' renderer of Qwen3-VL with the nano model's processor."""
    from renderers import Qwen3VLRenderer

    tokenizer = AutoTokenizer.from_pretrained(scratch())
    return Qwen3VLRenderer(tokenizer, processor=load_processor())


def wire(role, text, *, image=False):
    """Return a message of the chat completion API."""
    content = [{"type": "text", "text": text}]
    if image:
        content.insert(0, {"type": "image_url", "image_url": {"url": looking.data_url(picture())}})
    return {"role": role, "content": content if image else text}


CALL = '<tool_call>\n{"name": "look", "arguments": {"turn": "1"}}\n</tool_call>'


@contextlib.contextmanager
def engine(texts, folder):
    """Serve given texts, one per turn of an episode, by vLLM's route; yield the address."""
    tokenizer = AutoTokenizer.from_pretrained(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send({"data": [{"id": "fake", "object": "model"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            turn = tokenizer.decode(body["token_ids"]).count("<|im_start|>assistant") - 1
            ids = tokenizer.encode(texts[turn], add_special_tokens=False)
            ids.append(tokenizer.eos_token_id)
            content = [{"token": f"token_id:{one}", "logprob": -0.5} for one in ids]
            choice = {"index": 0, "finish_reason": "stop", "token_ids": ids}
            choice["logprobs"] = {"content": content}
            images = [n for n, one in enumerate(body["token_ids"]) if one == 6]
            places = {"image": [{"offset": n, "length": 1} for n in images]}
            found = {"request_id": "", "prompt_token_ids": body["token_ids"], "choices": [choice]}
            self.send(found | {"mm_placeholders": places})

        def send(self, value):
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
