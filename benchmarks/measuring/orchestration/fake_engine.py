"""A server that answers as vLLM does, with recorded tokens, at the latencies of `latency`.

Routes: ``/inference/v1/generate`` (exact ids, with images), ``/v1/completions`` (exact ids),
``/v1/chat/completions`` (messages), ``/v1/chat/completions/render``, ``/v1/models``, ``/health``.
It runs in a process of its own and prints its port::

    python -m benchmarks.measuring.orchestration.fake_engine --style code
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from codedance.policies.loading import NANO_FOLDER
from transformers import AutoTokenizer

from .latency import EngineClock, Latency, Turn
from .recording import CALL_TOKENS, STYLES, Style, episode_of, recorded

_ASSISTANT = "<|im_start|>assistant"
_IMAGE = "<|image_pad|>"
_LOG_PROBABILITY = -0.25


class FakeEngine:
    """Recorded replies, each as soon as the engine would have written it.

    Args:
        style: Format of the replies.
        latency: Speed of the engine.
        image_tokens: Tokens of an image in the prompts that are returned.
    """

    def __init__(self, style: Style, latency: Latency, *, image_tokens: int = 324) -> None:
        self._style = style
        self._image_tokens = image_tokens
        self._tokenizer: Any = AutoTokenizer.from_pretrained(NANO_FOLDER)
        if style.name == "call-tokens":
            self._tokenizer.add_tokens(list(CALL_TOKENS), special_tokens=True)
        (self._image_id,) = self._tokenizer.encode(_IMAGE, add_special_tokens=False)
        (self._filler,) = self._tokenizer.encode("a", add_special_tokens=False)
        self._endings: dict[int, list[int]] = {}
        self._loop = asyncio.get_running_loop()
        self._clock = EngineClock(latency, self._loop.time())
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    async def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            KeyError: There is no such route.
        """
        if path == "/health":
            return {}
        if path == "/v1/models":
            return {"data": [{"id": "fake", "object": "model", "max_model_len": 32768}]}
        if path == "/v1/chat/completions/render":
            return {"features": {"mm_hashes": {}, "mm_placeholders": {}, "kwargs_data": None}}
        if path == "/inference/v1/generate":
            ids = self._expanded(body["token_ids"], len(body.get("content_parts") or ()))
            written = await self._write(self._tokenizer.decode(ids))
            return {
                "request_id": "",
                "prompt_token_ids": ids,
                "choices": [_choice(written) | {"token_ids": written}],
                "mm_placeholders": {"image": self._places(ids)},
            }
        if path == "/v1/completions":
            prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
            tasks = [self._write(self._tokenizer.decode(ids)) for ids in prompts]
            return {"choices": [_completion(ids) for ids in await asyncio.gather(*tasks)]}
        if path == "/v1/chat/completions":
            return await self._chat(body)
        raise KeyError(path)

    async def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        said = "".join(f"<|im_start|>{one['role']}{_text(one)}" for one in body["messages"])
        written = await self._write(said + _ASSISTANT)
        message = {"role": "assistant", "content": self._tokenizer.decode(written[:-1])}
        usage = {"prompt_tokens": len(said) // 3, "completion_tokens": len(written)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "", "object": "chat.completion", "created": 0, "model": "fake"} | {
            "choices": [choice],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }

    async def _write(self, prompt: str) -> list[int]:
        """Wait as long as the engine would take; return the ids of the reply."""
        turn = prompt.count(_ASSISTANT) - 1
        episode = episode_of(prompt)
        plan = recorded(episode)[turn]
        await self._wait(plan)
        if turn not in self._endings:
            ending = self._tokenizer.encode(self._style.ending(turn), add_special_tokens=False)
            self._endings[turn] = [*ending, self._tokenizer.eos_token_id]
        opening = self._tokenizer.encode("<think>", add_special_tokens=False)
        ending = self._endings[turn]
        filler = max(plan.tokens - len(opening) - len(ending), 1)
        return [*opening, *([self._filler] * filler), *ending]

    async def _wait(self, plan: Turn) -> None:
        now = self._loop.time()
        self._finish(now)
        key = next(self._numbers)
        self._waiting[key] = self._loop.create_future()
        self._clock.submit(key, plan, now)
        self._set_timer()
        await self._waiting[key]

    def _finish(self, now: float) -> None:
        for key in self._clock.advance(now):
            self._waiting.pop(key).set_result(None)  # pyright: ignore[reportArgumentType]

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        event = self._clock.next_event
        self._timer = None if event is None else self._loop.call_at(event, self._ring)

    def _ring(self) -> None:
        self._finish(self._loop.time())
        self._set_timer()

    def _expanded(self, ids: Sequence[int], images: int) -> list[int]:
        """Return the ids with every image's tokens, as vLLM expands one id per image."""
        if not images:
            return list(ids)
        tokens = [self._image_id] * self._image_tokens
        return [one for token in ids for one in (tokens if token == self._image_id else (token,))]

    def _places(self, ids: Sequence[int]) -> list[dict[str, int]]:
        begins = [
            place
            for place, token in enumerate(ids)
            if token == self._image_id and ids[place - 1] != self._image_id
        ]
        return [{"offset": begin, "length": self._image_tokens} for begin in begins]


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    parts = [{"text": content}] if isinstance(content, str) else content or []
    return "".join(part.get("text") or "" for part in parts)


def _choice(ids: Sequence[int]) -> dict[str, Any]:
    named = [
        {"token": f"token_id:{one}", "token_id": one, "logprob": _LOG_PROBABILITY} for one in ids
    ]
    content = [one | {"top_logprobs": [one]} for one in named]
    return {"index": 0, "finish_reason": "stop", "logprobs": {"content": content}}


def _completion(ids: list[int]) -> dict[str, Any]:
    scores = {
        "tokens": [f"token_id:{one}" for one in ids],
        "token_logprobs": [_LOG_PROBABILITY] * len(ids),
        "top_logprobs": [{f"token_id:{one}": _LOG_PROBABILITY} for one in ids],
    }
    return {"index": 0, "finish_reason": "stop", "token_ids": ids, "logprobs": scores, "text": ""}


async def serve(
    engine: FakeEngine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer the requests of one connection, one after another."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")
            path = lines[0].split(" ")[1].split("?")[0]
            fields = {
                name.lower(): value for name, _, value in (one.partition(": ") for one in lines)
            }
            content = await reader.readexactly(int(fields.get("content-length", 0)))
            try:
                found, status = await engine.answer(path, json.loads(content or "{}")), "200 OK"
            except (KeyError, ValueError, IndexError) as error:
                found, status = {"error": f"{path}: {error!r}"}, "400 Bad Request"
            text = json.dumps(found).encode()
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(text)}\r\n\r\n".encode()
                + text
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def serving(engine: FakeEngine) -> AsyncGenerator[int]:
    """Serve an engine on this machine; yield its port. Connections are closed at the end."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(engine, reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**26, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


async def run(options: argparse.Namespace) -> None:
    """Serve until the process ends; print the port."""
    style = Style(options.style, options.seconds)
    engine = FakeEngine(style, Latency(), image_tokens=options.image_tokens)
    async with serving(engine) as port:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--style", default="code", choices=STYLES)
    parser.add_argument("--seconds", type=float, default=0.2, help="seconds that code sleeps")
    parser.add_argument("--image-tokens", type=int, default=324)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
