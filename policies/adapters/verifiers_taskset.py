"""Taskset and environment for verifiers, for releases from 0.4 (tested with 0.4.0).

There an environment plays the user of an agent, turn by turn, and each trace is scored alone: here
with the reward of the Gymnasium environment (μ is the task's own pass rate).

verifiers finds a taskset by the name of a top-level module: write a module of these two lines, and
pass its name as ``--env.taskset.id``::

    from codedance.policies.adapters.verifiers_taskset import VisualCodeEnv, VisualCodeTaskset
    __all__ = ["VisualCodeEnv", "VisualCodeTaskset"]

Importing this module does not load verifiers; the classes are created on first access.
"""

from __future__ import annotations

import asyncio
from functools import cache
from importlib import import_module
from typing import Any

from ...envs.episode import Episode
from ...envs.episode_factory import EpisodeHost, HostSettings
from ...envs.protocol import system_prompt
from ..inference.openai_client import openai_message
from ..seeds import derive_seed

# Provided by __getattr__.
__all__ = ["VisualCodeEnv", "VisualCodeTaskset"]  # noqa: F822  # pyright: ignore[reportUnsupportedDunderAll]


async def converse(episode: Episode, interaction: Any) -> None:  # noqa: ANN401 - verifiers' Interaction
    """Play the user of an agent until the episode or the agent's run is over.

    The first turn holds the user's messages of the episode's opening only: the system prompt
    belongs to the task.
    """
    message = [openai_message(one) for one in episode.opening if one.role == "user"]
    while episode.ending is None:
        segment = await interaction.turn(message)
        if segment.terminated:  # a limit of the agent: it wrote nothing in this turn
            episode.cut()
            break
        await asyncio.to_thread(episode.step, segment.last_reply)
        message = [openai_message(episode.messages[-1])]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, created on first access
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _classes()[name]


@cache
def _host(settings: HostSettings) -> EpisodeHost:
    return EpisodeHost(settings)


def _host_of(config: Any) -> EpisodeHost:  # noqa: ANN401 - verifiers' TasksetConfig
    """Return the shared host of a taskset's settings."""
    families = None if config.families is None else tuple(config.families)
    names = ("suite", "split", "reward", "max_turns", "sandbox")
    chosen = {name: getattr(config, name) for name in names}
    return _host(HostSettings(families=families, **chosen))


@cache
def _classes() -> dict[str, Any]:
    vf: Any = import_module("verifiers.v1")

    class Settings(vf.TasksetConfig):
        suite: str = "nano"
        split: str = "train"
        families: list[str] | None = None
        reward: str = "bat"
        max_turns: int = 6
        sandbox: str = "local"
        count: int = 1000

    class Data(vf.TaskData):
        task_id: str

    class VisualCodeTask(vf.Task[Data, vf.State, vf.TaskConfig]):
        """A task, identified by its id."""

    class VisualCodeTaskset(vf.Taskset[VisualCodeTask, Settings]):
        """The suite's tasks by id; images and answers stay with the host."""

        def load(self) -> Any:  # noqa: ANN401 - verifiers' own
            host = _host_of(self.config)
            rules = system_prompt(host.settings.interface)
            for task in host.tasks(self.config.count):
                data = Data(name=task.id, task_id=task.id, system_prompt=rules)
                yield VisualCodeTask(data, self.config.task)

    class Environment(vf.EnvConfig):
        policy: vf.AgentConfig = vf.AgentConfig(harness={"id": "null"})  # pyright: ignore[reportInvalidTypeForm]

    class VisualCodeEnv(vf.Env[Environment]):
        """Plays the user: the question, then the code's output."""

        async def run(self, task: Any, agents: Any) -> None:  # noqa: ANN401 - verifiers' own
            """Run one episode and record the terms of its reward."""
            host = _host_of(self.config.taskset)
            async with agents.policy.interaction(task) as interaction:
                seed = derive_seed("verifiers", interaction.trace.id)
                episode = await asyncio.to_thread(host.open, task.data.task_id, seed=seed)
                try:
                    await converse(episode, interaction)
                finally:
                    if episode.ending is None:
                        episode.fail()
                    episode.close()
            trajectory = await asyncio.to_thread(host.finish, episode, "verifiers")
            terms = host.score(trajectory)
            interaction.trace.info["ending"] = trajectory.ending.value
            if terms is None:
                raise vf.SandboxError(f"the sandbox failed on {trajectory.task_id}")
            for name, value in terms.items():
                interaction.trace.record_reward(name, value, 1.0)

    return {"VisualCodeEnv": VisualCodeEnv, "VisualCodeTaskset": VisualCodeTaskset}
