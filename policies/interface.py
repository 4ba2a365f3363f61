"""What every policy is: something that turns conversations into replies, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from ..envs.types import Message, Task, Tokens


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a policy draws its tokens.

    Attributes:
        temperature: 0.0 takes the most likely token.
        top_p: Smallest set of tokens whose probability reaches this is sampled from.
        top_k: Only this many most likely tokens; 0 for all.
        max_new_tokens: Limit of one turn.
        max_tokens: Limit of a whole episode, prompt and replies included.
        stop: Texts that end a turn as soon as one is written, for models that do not end their
            turns themselves; only policies with tokens heed them.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 512
    max_tokens: int = 16_384
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from."""
        if self.temperature < 0.0 or not 0.0 < self.top_p <= 1.0 or self.top_k < 0:
            raise ValueError(
                "temperature and top_k must be at least 0 and top_p above 0 and at most 1, got "
                f"{self.temperature}, {self.top_k}, {self.top_p}"
            )
        if not all(self.stop):
            raise ValueError("an empty text in stop would end every turn before it begins")


@dataclass(slots=True)
class Conversation:
    """One episode as a policy sees it; the rollout adds messages, the policy adds its tokens.

    Attributes:
        messages: All so far; the last one is not the assistant's when a reply is due.
        seed: Of this episode's sampling, so that a reply does not depend on its batch.
        interface: ``code``, ``box`` or ``text``.
        turn: How many replies the policy has given.
        tokens: Exact ids so far; only policies with tokens keep them.
    """

    messages: list[Message]
    seed: int
    interface: str = "code"
    turn: int = 0
    tokens: Tokens | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A policy's text for one turn.

    Attributes:
        text: What it wrote.
        is_cut: Whether a token limit ended it.
        new_tokens: How many tokens it took; 0 for policies without tokens.
        seconds: How long it took on the wall: of a request of its own, the request; in slots, from
            joining to the last token; in a batch, the whole batch, for which each of its episodes
            waits. None until somebody measured. Never compared: equal seeds give equal replies.
    """

    text: str
    is_cut: bool = False
    new_tokens: int = 0
    seconds: float | None = field(default=None, compare=False)

    def timed(self, seconds: float) -> Reply:
        """Return the reply with its time, which a policy's own measurement goes before."""
        return self if self.seconds is not None else replace(self, seconds=seconds)


class Policy(Protocol):
    """What acts. A failure to reach the model raises `PolicyUnavailableError`: infrastructure."""

    @property
    def id(self) -> str:
        """A name that identifies the policy and its weights."""
        ...

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Return the next text of each conversation, in order."""
        ...


class ReplyStream(Protocol):
    """Conversations that are answered side by side: they join, are written, and leave."""

    @property
    def free(self) -> int:
        """How many more may join."""
        ...

    def join(self, conversations: Sequence[Conversation]) -> None:
        """Begin the next reply of each conversation."""
        ...

    def advance(self) -> list[tuple[Conversation, Reply]]:
        """Write a little more; gives the replies that are done, in an order of their own."""
        ...

    def forget(self, conversation: Conversation) -> None:
        """Drop what was kept for the next turn of a conversation that is over."""
        ...


@runtime_checkable
class StreamingPolicy(Policy, Protocol):
    """A policy whose replies need not begin and end together."""

    def stream(self, *, sampling: Sampling, slots: int) -> AbstractContextManager[ReplyStream]:
        """Open ``slots`` places in which replies are written."""
        ...


class PolicyUnavailableError(RuntimeError):
    """The model could not be asked (server away, quota): our infrastructure, not its answer."""


class PolicyRefusedError(PolicyUnavailableError):
    """Whoever holds the model refuses whatever it is asked (key, address, model's name)."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation to learn from: loss on the assistant's texts only.

    Attributes:
        task: What it solves.
        messages: The whole conversation, assistant messages included.
        source: Which teacher, in which style, made it.
    """

    task: Task
    messages: tuple[Message, ...]
    source: str = "teacher"
    tags: tuple[str, ...] = field(default=())
