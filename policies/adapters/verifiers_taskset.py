"""Taskset, environment and harness for verifiers, for releases from 0.4 (tested with 0.4.0).

There an environment plays the user of an agent, turn by turn, and each trace is scored alone: here
with the reward of the Gymnasium environment (μ is the task's own pass rate). A trace that our
infrastructure lost has a `SandboxError` and no reward, so it is not ``ok`` and is left out.

verifiers finds a taskset by the name of a top-level module: write a module of these lines, and
pass its name as ``--env.taskset.id``::

    from codedance.policies.adapters.verifiers_taskset import (
        VisualCodeEnv, VisualCodeHarness, VisualCodeTaskset
    )
    __all__ = ["VisualCodeEnv", "VisualCodeHarness", "VisualCodeTaskset"]

Importing this module does not load verifiers; the classes are created on first access.
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib import import_module
from typing import Any

from ...envs.episode import Episode
from ...envs.episode_factory import EpisodeHost, HostSettings, episode_record, settings_from
from ...envs.picture import DEFAULT_MAX_PIXELS
from ...envs.protocol import system_prompt
from ...envs.types import Ending
from ..inference.openai_client import openai_message
from ..seeds import derive_seed

# Provided by __getattr__.
__all__ = ["VisualCodeEnv", "VisualCodeHarness", "VisualCodeTaskset"]  # noqa: F822  # pyright: ignore[reportUnsupportedDunderAll]

EVIDENCE = "codedance"
"""Key of an episode's record in ``trace.info``: ending, terms, and evidence of each turn."""


async def converse(episode: Episode, interaction: Any) -> None:  # noqa: ANN401 - verifiers' Interaction
    """Play the user of an agent until the episode or the agent's run is over.

    The first turn holds the user's messages of the episode's opening only: the system prompt
    belongs to the task.
    """
    message = [openai_message(one) for one in episode.opening if one.role == "user"]
    while episode.ending is None:
        segment = await interaction.turn(message)
        if segment.terminated:  # it wrote nothing in this turn
            failed = bool(interaction.trace.errors)  # the model's server did; else a limit ended it
            (episode.fail if failed else episode.cut)()
            break
        is_cut = interaction.trace.calls[-1].finish_reason == "length"
        await asyncio.to_thread(episode.cut if is_cut else episode.step, segment.last_reply)
        if episode.ending is None:
            message = [openai_message(episode.messages[-1])]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, created on first access
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _MAKERS[name]()


@cache
def _host(settings: HostSettings) -> EpisodeHost:
    return EpisodeHost(settings)


def _host_of(config: Any) -> EpisodeHost:  # noqa: ANN401 - verifiers' TasksetConfig
    """Return the shared host of a taskset's settings."""
    # verifiers has a setting `system_prompt` of its own: the path of a file.
    return _host(settings_from(config.model_dump() | {"system_prompt": config.rules}))


@cache
def _harness_class() -> Any:  # noqa: ANN401 - verifiers' untyped classes
    vf: Any = import_module("verifiers.v1")

    class VisualCodeHarness(vf.Harness[vf.HarnessConfig]):
        """One chat completion a turn, in this process: verifiers' own install packages first."""

        APPENDS_SYSTEM_PROMPT = True
        SUPPORTS_RESUME = True
        EXECUTES_CODE = False
        NEEDS_CONTAINER = False

        async def launch(  # noqa: PLR0913 - verifiers' interface
            self,
            ctx: Any,  # noqa: ANN401 - verifiers' own, as below
            trace: Any,  # noqa: ANN401
            runtime: Any,  # noqa: ANN401
            endpoint: str,
            secret: str,
            mcp_urls: dict[str, str],
            data: Any,  # noqa: ANN401
        ) -> Any:  # noqa: ANN401
            """Ask for one reply to the conversation so far."""
            httpx: Any = import_module("httpx")
            wire: Any = import_module("verifiers.v1.dialects.chat")
            results: Any = import_module("verifiers.v1.runtimes")
            system, prompt = self.resolve_prompt(data)
            messages = [wire.message_to_wire(message) for message in prompt]
            if system:
                messages.insert(0, {"role": "system", "content": system})
            async with httpx.AsyncClient(timeout=None) as client:
                reply = await client.post(
                    f"{endpoint}/chat/completions",
                    json={"model": ctx.model, "messages": messages},
                    headers={"Authorization": f"Bearer {secret}"},
                )
            return results.ProgramResult(int(reply.is_error), "", reply.text)

    return VisualCodeHarness


@cache
def _taskset_class() -> Any:  # noqa: ANN401 - verifiers' untyped classes
    vf: Any = import_module("verifiers.v1")

    class Settings(vf.TasksetConfig):
        suite: str = "nano"
        split: str = "train"
        families: list[str] | None = None
        interface: str = "code"
        reward: str = "bat"
        max_turns: int = 6
        sandbox: str = "local"
        rules: str | None = None
        """System prompt; None for the interface's own, empty for none."""
        max_pixels: int = DEFAULT_MAX_PIXELS
        count: int = 1000
        start: int = 0

    class Data(vf.TaskData):
        task_id: str

    class VisualCodeTask(vf.Task[Data, vf.State, vf.TaskConfig]):
        """A task, identified by its id."""

    class VisualCodeTaskset(vf.Taskset[VisualCodeTask, Settings]):
        """The suite's tasks by id; images and answers stay with the host."""

        def load(self) -> Any:  # noqa: ANN401 - verifiers' own
            host = _host_of(self.config)
            own = host.settings.system_prompt
            rules = (system_prompt(host.settings.interface) if own is None else own) or None
            for task in host.tasks(self.config.count, start=self.config.start):
                data = Data(name=task.id, task_id=task.id, system_prompt=rules)
                yield VisualCodeTask(data, self.config.task)

    return VisualCodeTaskset


@cache
def _environment_class() -> Any:  # noqa: ANN401 - verifiers' untyped classes
    vf: Any = import_module("verifiers.v1")

    class Environment(vf.EnvConfig):
        policy: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())  # pyright: ignore[reportInvalidTypeForm]

    class VisualCodeEnv(vf.Env[Environment]):
        """Plays the user: the question, then the code's output."""

        async def run(self, task: Any, agents: Any) -> None:  # noqa: ANN401 - verifiers' own
            """Run one episode and record the terms of its reward."""
            host = _host_of(self.config.taskset)
            async with agents.policy.interaction(task) as interaction:
                trace = interaction.trace
                seed = derive_seed("verifiers", trace.id)
                episode = await asyncio.to_thread(host.open, task.data.task_id, seed=seed)
                try:
                    await converse(episode, interaction)
                finally:
                    if episode.ending is None:
                        episode.fail()
                    episode.close()
                if episode.ending is Ending.INFRASTRUCTURE:
                    trace.info[EVIDENCE] = {"ending": episode.ending.value, "is_valid": False}
                    if trace.errors:  # the model's server failed: the trace says so already
                        return
                    # Here, not after the context: only then is the trace marked as failed, too.
                    raise vf.SandboxError(f"the sandbox failed on {episode.task.id}")
                trajectory = await asyncio.to_thread(host.finish, episode, "verifiers")
                terms = host.score(trajectory)
                trace.info[EVIDENCE] = episode_record(trajectory, terms)
                if terms is None:
                    raise vf.SandboxError(f"{trajectory.task_id} could not be graded")
            for name, value in terms.items():
                trace.record_reward(name, value, 1.0)

    return VisualCodeEnv


_MAKERS = {
    "VisualCodeEnv": _environment_class,
    "VisualCodeHarness": _harness_class,
    "VisualCodeTaskset": _taskset_class,
}
