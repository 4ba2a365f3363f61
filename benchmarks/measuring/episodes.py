"""What the generation benchmarks play: tasks, and a tool that answers after a set time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from codedance.envs import load_suite
from codedance.envs.episode import Episode
from codedance.envs.types import Message, Task
from codedance.policies.interface import Conversation, Reply
from codedance.policies.rollouts.running_episode import RunningEpisode
from codedance.policies.seeds import derive_seed
from codedance.sandbox import Execution, Outcome
from codedance.sandbox.types import Session, SessionState

if TYPE_CHECKING:
    from codedance.policies.models.chat_tokens import ChatTokenizer
    from PIL import Image

MAX_NEW_TOKENS = 160
MAX_TURNS = 6


@dataclass(frozen=True, slots=True)
class Played:
    """What one rollout took and gave.

    Attributes:
        seconds: Wall time.
        tokens: That the policy wrote.
        trajectories: That came to an end.
    """

    seconds: float
    tokens: int
    trajectories: int


class PausingSandbox:
    """Answers every block after the same time, with a number or with a part of the picture."""

    tier = "none: a pause stands for the tool"

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds

    def session(self, images: Sequence[Image.Image] = (), *, seed: int = 0) -> Session:
        """Return a session that runs nothing."""
        return _PausingSession(self._pause_seconds, images, SessionState(seed))

    def restore(self, state: SessionState, images: Sequence[Image.Image] = ()) -> Session:
        """Return a session that runs nothing: there is no state to come back to."""
        return _PausingSession(self._pause_seconds, images, state)

    def close(self) -> None:
        """Hold nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _PausingSession:
    def __init__(
        self, pause_seconds: float, images: Sequence[Image.Image], state: SessionState
    ) -> None:
        self._pause_seconds = pause_seconds
        self._images = images
        self._state = state

    def run(self, code: str) -> Execution:
        time.sleep(self._pause_seconds)
        if "print" in code or not self._images:
            return Execution(Outcome.OK, stdout="5\n", wall_seconds=self._pause_seconds)
        width, height = self._images[0].size
        part = self._images[0].crop((width // 4, height // 4, width // 2, height // 2))
        return Execution(Outcome.OK, images=(part,), wall_seconds=self._pause_seconds)

    def snapshot(self) -> SessionState:
        return self._state

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def bench_tasks(count: int) -> list[Task]:
    """Return held-out tasks of the nano suite, spread over it."""
    suite = load_suite("nano", split="test")
    return [suite[index * len(suite) // count] for index in range(count)]


def open_episodes(
    tasks: Sequence[Task], samples: int, sandbox: PausingSandbox, *, max_pixels: int | None
) -> list[RunningEpisode]:
    """Begin ``samples`` episodes a task, with the nano model's own prompt (none)."""
    options: dict[str, Any] = {} if max_pixels is None else {"max_pixels": max_pixels}
    return [
        RunningEpisode.begin(
            Episode(
                task,
                sandbox,
                max_turns=MAX_TURNS,
                system_prompt="",
                seed=derive_seed("bench", task.id, sample),
                **options,
            )
        )
        for task in tasks
        for sample in range(samples)
    ]


@dataclass(slots=True, eq=False)
class Transcript:
    """Exact ids of one episode, for an engine that reads all of them again each turn.

    Attributes:
        ids: So far.
        own: Which of them the policy wrote.
        begin: How many ids the prompt has.
    """

    ids: list[int]
    own: list[bool]
    begin: int

    def images(self, conversation: Conversation) -> list[Image.Image]:
        """Return the pictures that the ids stand for."""
        return [image for message in conversation.messages for image in message.images]


Write = Callable[[Sequence[Sequence[int]], Sequence[Sequence["Image.Image"]]], list[list[int]]]
"""Continues each sequence to the end of its turn or its limit; gives the new ids alone."""


def play_turns(
    episodes: Sequence[RunningEpisode], chat: ChatTokenizer, write: Write
) -> list[Transcript]:
    """Take turns together until every episode is over: one call of ``write`` a turn.

    Tools run in threads, all of a turn's at once.
    """
    scripts = [_open(one, chat) for one in episodes]
    with ThreadPoolExecutor(32) as pool:
        while active := [n for n, one in enumerate(episodes) if not one.is_over]:
            conversations = [episodes[n].conversation for n in active]
            images = [scripts[n].images(c) for n, c in zip(active, conversations, strict=True)]
            written = write([scripts[n].ids for n in active], images)
            for n, ids in zip(active, written, strict=True):
                scripts[n].ids += ids
                scripts[n].own += [True] * len(ids)
            replies = [Reply(chat.decode(ids), is_cut=chat.end_id not in ids) for ids in written]
            list(pool.map(lambda n, reply: episodes[n].take(reply), active, replies))
            for n in active:
                if not episodes[n].is_over:
                    new = chat.after_reply([_newest(episodes[n].conversation)])
                    scripts[n].ids += new
                    scripts[n].own += [False] * len(new)
    return scripts


def _open(one: RunningEpisode, chat: ChatTokenizer) -> Transcript:
    ids = chat.open_prompt(one.conversation.messages)
    return Transcript(ids, [False] * len(ids), len(ids))


def _newest(conversation: Conversation) -> Message:
    return conversation.messages[-1]
