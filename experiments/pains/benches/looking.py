"""A taskset of verifiers with a tool ``look``, whose harness runs in this process.

verifiers finds it by the name of a top-level module: this folder is put on the path. A harness of
one's own is verifiers' own way of running another program; its loop is that of the harness `null`,
which would first install packages. Every request goes through verifiers' interception server.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import io
import json
import weakref

import httpx
import verifiers.v1 as vf
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.runtimes import ProgramResult

__all__ = ["LookHarness", "LookTaskset"]

SETTINGS = {"look": None, "questions": [], "score": None}
"""The tool, the questions with their images, and the reward; set before the tasks are loaded."""
SCHEMA = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look at the image.",
        "parameters": {"type": "object", "properties": {"turn": {"type": "string"}}},
    },
}


def data_url(image) -> str:
    """Return an image as a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def parts(content):
    """Return text and images in the format of the chat completion API."""
    return [
        {"type": "text", "text": one}
        if isinstance(one, str)
        else {"type": "image_url", "image_url": {"url": data_url(one)}}
        for one in content
    ]


_CLIENTS = weakref.WeakKeyDictionary()


def shared_client():
    """Return the HTTP client of the running event loop; one per episode would cost more."""
    loop = asyncio.get_running_loop()
    if loop not in _CLIENTS:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        _CLIENTS[loop] = httpx.AsyncClient(timeout=None, limits=limits)
    return _CLIENTS[loop]


class LookTask(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
    """A question with an image."""

    @vf.reward
    async def right(self, trace: vf.Trace) -> float:
        """Return the reward of a trace."""
        return await asyncio.to_thread(SETTINGS["score"], trace) if SETTINGS["score"] else 1.0


class LookTaskset(vf.Taskset[LookTask, vf.TasksetConfig]):
    """The questions of `SETTINGS`."""

    def load(self):
        """Yield the tasks."""
        for content in SETTINGS["questions"]:
            message = vf.UserMessage(content=parts(content))
            yield LookTask(vf.TaskData(prompt=[message]), self.config.task)


class LookHarness(vf.Harness[vf.HarnessConfig]):
    """Asks for replies and runs the tool until a reply has no call."""

    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(  # noqa: PLR0913 - verifiers' interface
        self, ctx, trace, runtime, endpoint, secret, mcp_urls, data
    ):
        """Run the agent's loop."""
        _, prompt = self.resolve_prompt(data)
        messages = [message_to_wire(one) for one in prompt]
        headers = {"Authorization": f"Bearer {secret}"}
        client, url = shared_client(), f"{endpoint}/chat/completions"
        while True:
            body = {"model": ctx.model, "messages": messages, "tools": [SCHEMA]}
            reply = await client.post(url, json=body, headers=headers)
            if reply.is_error:
                return ProgramResult(1, "", reply.text)
            said = reply.json()["choices"][0]["message"]
            messages.append(said)
            if not said.get("tool_calls"):
                return ProgramResult(0, said.get("content") or "", "")
            for call in said["tool_calls"]:
                found = SETTINGS["look"](**json.loads(call["function"]["arguments"]))
                content = await found if inspect.isawaitable(found) else found
                tool = {"role": "tool", "tool_call_id": call["id"], "content": parts(content)}
                messages.append(tool)
