"""Multi-turn environment for verifiers: its loop calls the model, our episodes run the tools.

For the `MultiTurnEnv` of verifiers 0.1 to 0.3 (tested with 0.3.1), whose rubric scores siblings
together: the reward is `score_group`, and each step of a trajectory gets the advantage of its turn.
Releases from 0.4 have another interface: `verifiers_taskset`.

    from codedance.policies.adapters.verifiers_env import load_environment

    environment = load_environment(suite="nano", count=500)

Importing this module does not load verifiers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ...envs.episode_factory import EpisodeHost, HostSettings
from ...envs.rewards import score_group
from ...envs.rewards.terms import group_reward, group_turn_advantages
from ...envs.types import Ending, Message, Trajectory
from ..inference.chat_completion import CompletionError, text_of_content
from ..inference.openai_client import openai_message
from ..seeds import derive_seed

EPISODE, TRAJECTORY = "codedance_episode", "codedance_trajectory"
"""Keys of a rollout's state for the running episode, and for its trajectory."""


def load_environment(*, count: int = 1000, start: int = 0, **settings: Any) -> Any:  # noqa: ANN401 - verifiers' class
    """Return an environment for verifiers' trainers and evaluations.

    Args:
        count: Number of tasks of the suite, in its order.
        start: Index of the first task.
        settings: Fields of `HostSettings`.

    Raises:
        ModuleNotFoundError: verifiers is not installed.
    """
    verifiers: Any = import_module("verifiers")
    datasets: Any = import_module("datasets")
    host = EpisodeHost(HostSettings(**settings))
    rows = [
        {"prompt": [{"role": "user", "content": task.question}], "info": {"task_id": task.id}}
        for task in host.tasks(count, start=start)
    ]
    return multi_turn_class(verifiers)(host, dataset=datasets.Dataset.from_list(rows))


def multi_turn_class(verifiers: Any) -> Any:  # noqa: ANN401 - verifiers' untyped classes
    """Return our subclass of ``MultiTurnEnv``."""

    class VisualCodeMultiTurnEnv(verifiers.MultiTurnEnv):
        """Opens an episode per rollout and exchanges messages between it and verifiers."""

        def __init__(self, host: EpisodeHost, **options: Any) -> None:  # noqa: ANN401 - verifiers' own
            def siblings(states: list[Any]) -> list[float]:
                return score_states(states, reward=host.settings.reward)

            # The episode has its own turn limit, so verifiers' limit stays off.
            super().__init__(rubric=verifiers.Rubric(funcs=[siblings]), max_turns=-1, **options)
            self.host = host

        async def setup_state(self, state: Any) -> Any:  # noqa: ANN401 - verifiers' own
            """Begin the episode; the prompt becomes its opening, images included."""
            seed = derive_seed("verifiers", state["trajectory_id"])
            task_id = state["info"]["task_id"]
            episode = await asyncio.to_thread(self.host.open, task_id, seed=seed)
            state[EPISODE] = episode
            state["prompt"] = [_message(verifiers, message) for message in episode.messages]
            return state

        async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:  # noqa: ANN401 - verifiers' own
            """Step the episode with the model's text; return the environment's messages."""
            episode = state[EPISODE]
            is_cut = bool(state["trajectory"][-1]["is_truncated"])
            text = _text(verifiers, messages[-1])
            await asyncio.to_thread(episode.cut if is_cut else episode.step, text)
            if episode.ending is Ending.INFRASTRUCTURE:
                raise verifiers.InfraError(f"the sandbox failed on {episode.task.id}")
            if episode.ending is not None:
                state["final_env_response"] = []
                return []
            return [_message(verifiers, episode.messages[-1])]

        @verifiers.cleanup
        async def finish(self, state: Any) -> None:  # noqa: ANN401 - verifiers' own
            """Finish the trajectory; an episode that verifiers aborted counts as lost."""
            episode = state.pop(EPISODE, None)
            if episode is None:
                return
            if episode.ending is None:
                episode.fail()
            name = str(state.get("model"))
            state[TRAJECTORY] = await asyncio.to_thread(self.host.finish, episode, name)

    return VisualCodeMultiTurnEnv


def score_states(states: Sequence[Any], *, reward: str) -> list[float]:
    """Score siblings together, and set the advantage of each step to that of its turn.

    A step's advantage is the reward minus the mean of the siblings, as in verifiers, plus the
    advantage of the turn. A lost rollout gets 0 for both and is excluded from the others' mean;
    verifiers has no reward for "not scored".
    """
    trajectories: list[Trajectory | None] = [state.get(TRAJECTORY) for state in states]
    played = [one for one in trajectories if one is not None]
    rewards = [group_reward(terms) for terms in score_group(played, reward=reward)]
    scored = [value for value in rewards if value == value]
    mean = sum(scored) / len(scored) if scored else 0.0
    of_turns = iter(group_turn_advantages(played, reward=reward))
    left = iter(rewards)
    given: list[float] = []
    for state, one in zip(states, trajectories, strict=True):
        value = next(left) if one is not None else float("nan")
        turns = next(of_turns) if one is not None else []
        is_scored = value == value
        for step, turn in zip(state["trajectory"], turns, strict=False):
            step["advantage"] = value - mean + turn if is_scored else 0.0
        given.append(value if is_scored else 0.0)
    return given


def _message(verifiers: Any, message: Message) -> Any:  # noqa: ANN401 - verifiers' own
    """Return a message in the installed release's form: a message class, or a dict before those."""
    kind = getattr(verifiers, f"{message.role.capitalize()}Message", dict)
    return kind(**openai_message(message))


def _text(verifiers: Any, message: Any) -> str:  # noqa: ANN401 - a dict, or verifiers' own
    """Return the model's text; content without text of the model is a failure of the server."""
    content = message["content"] if isinstance(message, dict) else message.content
    try:
        return text_of_content(content)
    except CompletionError as error:
        raise verifiers.InfraError(str(error)) from error
