"""Agent for NeMo Gym: our episodes between its model server and its rollouts (tested with 0.4.0).

NeMo Gym's own Gymnasium interface passes text alone; this agent sends the images, too. A file of
three lines is an agent's server, as NeMo Gym starts it::

    from codedance.policies.adapters.nemo_gym_agent import VisualCodeAgent
    if __name__ == "__main__":
        VisualCodeAgent.run_webserver()

An episode that our infrastructure or the model's server lost has no reward (null), the mark
``mask_sample``, and the class ``transient``: NeMo Gym writes it beside the rollouts, not among
them, and tries it again when a run is resumed.

Importing this module does not load NeMo Gym; the class is created on first access.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any
from uuid import uuid4

from ...envs.episode import Episode
from ...envs.episode_factory import EpisodeHost, HostSettings, episode_record, settings_from
from ...envs.types import Message, Task
from ..inference.openai_client import data_uri, openai_message
from ..seeds import derive_seed

# Provided by __getattr__.
__all__ = ["VisualCodeAgent", "dataset_row"]  # noqa: F822  # pyright: ignore[reportUnsupportedDunderAll]

NAME = "codedance"

Ask = Callable[[list[dict[str, Any]]], Awaitable[dict[str, Any]]]
"""Sends the items of a conversation so far to the model's server; returns its response."""


def dataset_row(task: Task, *, agent: str = NAME) -> dict[str, Any]:
    """Return a task's row in a file of NeMo Gym; images and answer are looked up by the task's id.

    Args:
        task: Task.
        agent: Name of the agent's server in NeMo Gym's configuration.
    """
    ref = {"type": "responses_api_agents", "name": agent}
    return {"responses_create_params": {"input": []}, "agent_ref": ref, "task_id": task.id}


def input_item(message: Message) -> dict[str, Any]:
    """Return a message as an item of the Responses API."""
    if not message.images:
        return {"type": "message"} | openai_message(message)
    content = [
        {"type": "input_text", "text": part}
        if isinstance(part, str)
        else {"type": "input_image", "image_url": data_uri(part), "detail": "auto"}
        for part in message.parts
    ]
    return {"type": "message", "role": message.role, "content": content}


@dataclass(slots=True, eq=False)
class Conversation:
    """Items of one episode in the form of the Responses API.

    Attributes:
        opening: Items before the model's first response.
        output: The model's items, exact ids included where its server gives them, and the
            environment's in between.
        response: The model's last response; None before the first.
        failure: Failure of the model's server; None where it answered.
    """

    opening: list[dict[str, Any]]
    output: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    response: dict[str, Any] | None = None
    failure: Exception | None = None


async def play(episode: Episode, ask: Ask) -> Conversation:
    """Run an episode to its end; code blocks run in threads, so that other episodes continue."""
    talk = Conversation([input_item(message) for message in episode.opening])
    while episode.ending is None:
        try:
            talk.response = await ask(talk.opening + talk.output)
        except Exception as error:  # noqa: BLE001 - whatever the server's failure is, the episode is lost
            talk.failure = error
            episode.fail(error)
            break
        talk.output += talk.response["output"]
        is_cut = talk.response.get("incomplete_details") is not None
        text = text_of(talk.response)
        await asyncio.to_thread(episode.cut if is_cut else episode.step, text)
        if episode.ending is None:
            talk.output.append(input_item(episode.messages[-1]))
    return talk


def text_of(response: Mapping[str, Any]) -> str:
    """Return the text of a response, without reasoning."""
    items = [item for item in response["output"] if item["type"] == "message"]
    parts = [part for item in items for part in item["content"]]
    return "".join(part["text"] for part in parts if part["type"] == "output_text")


def result_of(
    host: EpisodeHost, episode: Episode, talk: Conversation, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return NeMo Gym's result of a finished episode."""
    trajectory = host.finish(episode, NAME)
    terms = host.score(trajectory)
    result: dict[str, Any] = {
        "responses_create_params": {**params, "input": talk.opening},
        "response": (talk.response or {}) | {"output": talk.output},
        "reward": None if terms is None else sum(terms.values()),
        **episode_record(trajectory, terms),
    }
    if terms is None:
        reason = talk.failure or episode.failure
        result |= {"mask_sample": True, "_ng_failure_class": "transient", "error": repr(reason)}
    return result


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, created on first access
    if name != "VisualCodeAgent":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _agent_class()


@cache
def _host(settings: HostSettings) -> EpisodeHost:
    return EpisodeHost(settings)


@cache
def _agent_class() -> Any:  # noqa: ANN401 - a subclass of NeMo Gym's class
    base: Any = import_module("nemo_gym.base_responses_api_agent")
    types: Any = import_module("nemo_gym.config_types")
    servers: Any = import_module("nemo_gym.server_utils")
    fastapi: Any = import_module("fastapi")

    class Config(base.BaseResponsesAPIAgentConfig):
        model_server: types.ModelServerRef  # pyright: ignore[reportInvalidTypeForm]
        settings: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it; fields of HostSettings

    class VisualCodeAgent(base.SimpleResponsesAPIAgent):
        """Runs one episode a request; its settings are those of `HostSettings`."""

        config: Config

        async def responses(self, request: Any) -> Any:  # noqa: ANN401 - FastAPI's and NeMo Gym's, as below
            """Pass a request on to the model's server."""
            return await self._ask(await request.json(), {})

        async def run(self, request: Any) -> Any:  # noqa: ANN401
            """Run the episode of a row (`dataset_row`)."""
            row = await request.json()
            host = _host(settings_from(self.config.settings))
            cookies, params = dict[str, Any](), row["responses_create_params"]
            seed = derive_seed(NAME, row["task_id"], uuid4().hex)
            episode = await asyncio.to_thread(host.open, row["task_id"], seed=seed)

            async def ask(items: list[dict[str, Any]]) -> dict[str, Any]:
                return await self._ask({**params, "input": items}, cookies)

            try:
                talk = await play(episode, ask)
                return await asyncio.to_thread(result_of, host, episode, talk, params)
            finally:
                episode.close()

        async def _ask(self, body: Any, cookies: dict[str, Any]) -> Any:  # noqa: ANN401
            reply = await self.server_client.post(
                server_name=self.config.model_server.name,
                url_path="/v1/responses",
                json=body,
                cookies=dict(cookies),
            )
            await servers.raise_for_status(reply)
            cookies.update({name: value.value for name, value in reply.cookies.items()})
            return await servers.get_response_json(reply)

    for handler in (VisualCodeAgent.responses, VisualCodeAgent.run):  # FastAPI reads them
        handler.__annotations__ = {"request": fastapi.Request}
    return VisualCodeAgent
