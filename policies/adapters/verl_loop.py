"""Agent loop for verl: exact ids, images from tools, the sandbox, and our reward.

verl (tested with 0.9.1) runs an agent loop for one trajectory at a time and receives it as
`AgentLoopOutput`. The reward is therefore that of the trajectory alone: values that need siblings
(`score_group`, the advantages of turns) have to be computed in an advantage estimator of verl, for
which ``extra_fields`` holds the terms and the turn of every token.

In verl's ``agent_loop_config_path``, with rows of `dataset_row`::

    - name: codedance
      _target_: codedance.policies.adapters.verl_loop.VisualCodeAgentLoop
      suite: nano
      split: train
      system_prompt: ""

Importing this module loads neither verl nor torch; the class is created on first access.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ...envs.episode import Episode
from ...envs.episode_factory import EpisodeHost, HostSettings, episode_record, settings_from
from ...envs.types import Task, Tokens, Trajectory
from ..seeds import derive_seed

if TYPE_CHECKING:
    from PIL import Image

    from ..models.chat_tokens import ChatTokenizer

NAME = "codedance"
_LOOP = "verl.experimental.agent_loop.agent_loop"


@dataclass(frozen=True, slots=True)
class Written:
    """Output of an inference server.

    Attributes:
        ids: Generated ids, the end of the turn included where it was reached.
        log_probabilities: Log-probability of each id; None where the server returns none.
        is_lost: Whether the server aborted the request.
    """

    ids: Sequence[int]
    log_probabilities: Sequence[float] | None = None
    is_lost: bool = False


Write = Callable[[list[int], "list[Image.Image]"], Awaitable[Written]]
"""Continues exact ids, with their images, to the end of the turn."""


@dataclass(slots=True, eq=False)
class Script:
    """The exact ids of one episode, and its timings.

    Attributes:
        ids: Ids so far.
        scores: Log-probability of each id, 0.0 for ids that the policy did not write.
        turn_of: Turn of each id; -1 for ids that the policy did not write.
        has_scores: Whether the server returned log-probabilities for every turn.
        writing_seconds: Time spent waiting for the server.
        tool_seconds: Time spent in the sandbox.
        images: Number of images that the ids refer to.
    """

    ids: list[int]
    scores: list[float] = field(default_factory=list[float])
    turn_of: list[int] = field(default_factory=list[int])
    has_scores: bool = True
    writing_seconds: float = 0.0
    tool_seconds: float = 0.0
    images: int = 0

    def ask(self, ids: Sequence[int], images: int) -> None:
        """Append ids that the policy reads, with which they refer to ``images`` in all."""
        self.ids += ids
        self.images = images
        self.scores += [0.0] * (len(self.ids) - len(self.scores))
        self.turn_of += [-1] * (len(self.ids) - len(self.turn_of))

    def answer(self, written: Written, turn: int) -> None:
        """Append ids that the policy wrote."""
        self.ids += written.ids
        self.has_scores &= written.log_probabilities is not None
        self.scores += written.log_probabilities or [0.0] * len(written.ids)
        self.turn_of += [turn] * len(written.ids)

    def tokens(self) -> Tokens:
        """Return the token record of our own trainers."""
        return Tokens(tuple(self.ids), tuple(self.scores), tuple(self.turn_of), self.images)


async def play(episode: Episode, chat: ChatTokenizer, write: Write, *, limit: int) -> Script:
    """Run an episode to its end; code blocks run in threads, so that other episodes continue.

    Args:
        episode: A new episode.
        chat: Encoder of the text that the policy reads; its own text is never encoded again.
        write: Function that calls the model.
        limit: Limit of ids after the prompt; an episode that reaches it is cut.
    """
    script = Script([])
    script.ask(chat.open_prompt(episode.messages), len(_pictures(episode)))
    begin = len(script.ids)
    while episode.ending is None:
        begun = time.perf_counter()
        written = await write(script.ids, _pictures(episode))
        script.writing_seconds += time.perf_counter() - begun
        if written.is_lost:
            episode.fail()
            break
        script.answer(written, len(episode.turns))
        text = chat.decode(written.ids)
        is_cut = not written.ids or written.ids[-1] != chat.end_id
        begun = time.perf_counter()
        await asyncio.to_thread(episode.cut if is_cut else episode.step, text)
        script.tool_seconds += time.perf_counter() - begun
        if episode.ending is None:
            reply = chat.after_reply([episode.messages[-1]])
            if len(script.ids) - begin + len(reply) >= limit:
                episode.cut()
            else:
                script.ask(reply, len(_pictures(episode)))
    return script


def dataset_row(task: Task) -> dict[str, Any]:
    """Return a task's row in verl's data set; the loop finds images and answer by task id."""
    return {
        "data_source": f"{NAME}/{task.suite}",
        "agent_name": NAME,
        "prompt": [{"role": "user", "content": task.question}],
        "ability": task.family,
        "reward_model": {"style": "rule", "ground_truth": ""},
        "extra_info": {"task_id": task.id},
    }


def agent_loop_class(base: Any, output: Any) -> Any:  # noqa: ANN401 - verl's untyped classes
    """Return our agent loop as a subclass of verl's.

    Args:
        base: Class ``AgentLoopBase``.
        output: Class ``AgentLoopOutput``.
    """

    class VisualCodeAgentLoop(base):
        """Runs one episode per trajectory; its settings are those of `HostSettings`."""

        def __init__(self, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401 - verl's own
            own = {one.name for one in fields(HostSettings)} | {"tools"}
            super().__init__(
                *arguments, **{name: value for name, value in settings.items() if name not in own}
            )
            self.host = _host(settings_from(settings))
            self.chat = _chat(self.tokenizer, self.processor)

        async def run(self, sampling_params: dict[str, Any], **row: Any) -> Any:  # noqa: ANN401 - verl's own
            """Run the episode of a row and return its output to verl."""
            task_id = dict(row["extra_info"])["task_id"]
            request = uuid4().hex
            seed = derive_seed(NAME, task_id, request)
            episode = await asyncio.to_thread(self.host.open, task_id, seed=seed)

            async def write(ids: list[int], images: list[Image.Image]) -> Written:
                given = await self.server_manager.generate(
                    request_id=request,
                    prompt_ids=list(ids),
                    sampling_params=dict(sampling_params),
                    image_data=images or None,
                )
                is_lost = given.stop_reason == "aborted"
                return Written(list(given.token_ids), given.log_probs or None, is_lost)

            limit = self.rollout_config.response_length
            try:
                script = await play(episode, self.chat, write, limit=limit)
                images = _pictures(episode)[: script.images]
                finish = asyncio.to_thread(self.host.finish, episode, NAME, script.tokens())
                trajectory = await finish
            finally:
                episode.close()
            return output(**output_fields(self.host, script, trajectory, images, limit=limit))

    VisualCodeAgentLoop.__module__ = __name__
    VisualCodeAgentLoop.__qualname__ = "VisualCodeAgentLoop"
    return VisualCodeAgentLoop


def output_fields(
    host: EpisodeHost,
    script: Script,
    trajectory: Trajectory,
    images: Sequence[Image.Image],
    *,
    limit: int,
) -> dict[str, Any]:
    """Return the fields of ``AgentLoopOutput``.

    verl has no third outcome: a trajectory that our infrastructure lost has an empty mask, so it is
    not trained on, but its reward of 0 counts in its group's mean.
    """
    terms = host.score(trajectory)
    begin = next((i for i, turn in enumerate(script.turn_of) if turn >= 0), len(script.ids))
    end = begin + limit
    completion_mask = [int(turn >= 0 and terms is not None) for turn in script.turn_of[begin:end]]
    return {
        "prompt_ids": script.ids[:begin],
        "response_ids": script.ids[begin:end],
        "response_mask": completion_mask,
        "response_logprobs": script.scores[begin:end] if script.has_scores else None,
        "multi_modal_data": {"images": list(images)} if images else {},
        "reward_score": sum((terms or {}).values()),
        "num_turns": 2 * len(trajectory.turns),
        "metrics": {
            "generate_sequences": script.writing_seconds,
            "tool_calls": script.tool_seconds,
        },
        "extra_fields": {
            **episode_record(trajectory, terms),
            "turn_of": script.turn_of[begin:end],
        },
    }


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the class, created on first access
    if name != "VisualCodeAgentLoop":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _made()


@cache
def _made() -> Any:  # noqa: ANN401 - a subclass of verl's class
    verl: Any = import_module(_LOOP)
    return agent_loop_class(verl.AgentLoopBase, verl.AgentLoopOutput)


@cache
def _host(settings: HostSettings) -> EpisodeHost:
    """Return the shared host of these settings: verl creates an agent loop per trajectory."""
    return EpisodeHost(settings)


@lru_cache(maxsize=4)
def _chat(tokenizer: Any, processor: Any) -> ChatTokenizer:  # noqa: ANN401 - untyped library objects
    from ..models.chat_tokens import ChatTokenizer
    from ..models.pictures import PictureCache

    return ChatTokenizer(tokenizer, PictureCache(processor.image_processor).token_count)


def _pictures(episode: Episode) -> list[Image.Image]:
    return [image for message in episode.messages for image in message.images]
