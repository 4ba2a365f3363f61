"""Interface of all policies: a policy turns conversations into replies, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from ..envs.types import Message, Task, Tokens


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of a policy.

    Attributes:
        temperature: Sampling temperature; 0.0 takes the most likely token.
        top_p: Probability mass of nucleus sampling: tokens are drawn from the smallest set whose
            probability reaches it.
        top_k: Number of most likely tokens to draw from; 0 for all.
        max_new_tokens: Token limit per turn.
        max_tokens: Token limit per episode, prompt and replies included.
        stop: Stop texts; a turn ends as soon as one is written, with it, for models that do not
            end their turns themselves.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 512
    max_tokens: int = 16_384
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject invalid sampling parameters."""
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
        messages: All messages so far; the last one is not the assistant's when a reply is due.
        seed: Random seed of this episode's sampling, so that a reply does not depend on its batch.
        interface: ``code``, ``box`` or ``text``.
        turn: Number of replies of the policy so far.
        tokens: Exact ids so far; only policies with tokens record them.
        served_tokens: Number of tokens of the last prompt and reply, as a server counted them;
            0 where none did.
    """

    messages: list[Message]
    seed: int
    interface: str = "code"
    turn: int = 0
    tokens: Tokens | None = None
    served_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """A policy's text for one turn.

    Attributes:
        text: Text of the reply.
        is_cut: Whether a token limit ended it.
        new_tokens: Number of generated tokens; 0 for policies without tokens.
        seconds: Wall time: of the request, where each reply has its own; in slots, from joining to
            the last token; in a batch, of the whole batch, since each of its episodes waits for
            it. None until measured. Excluded from comparison: equal seeds give equal replies.
    """

    text: str
    is_cut: bool = False
    new_tokens: int = 0
    seconds: float | None = field(default=None, compare=False)

    def timed(self, seconds: float) -> Reply:
        """Return the reply with its wall time; a time that the policy measured takes precedence."""
        return self if self.seconds is not None else replace(self, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a reply that is still being generated.

    Attributes:
        text: Text of whole characters, so that the pieces of a reply join to its beginning.
        ids: Token ids of the text.
        log_probabilities: Log-probability of each id.
    """

    text: str
    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]


class Policy(Protocol):
    """A policy; it raises `PolicyUnavailableError` (infrastructure) if the model is unreachable."""

    @property
    def id(self) -> str:
        """Name that identifies the policy and its weights."""
        ...

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Return the next text of each conversation, in order."""
        ...


class ReplyStream(Protocol):
    """Continuous batching: conversations join, their replies are generated, and they leave."""

    @property
    def free(self) -> int:
        """Number of conversations that can still join."""
        ...

    def join(self, conversations: Sequence[Conversation]) -> None:
        """Begin the next reply of each conversation."""
        ...

    def advance(self) -> list[tuple[Conversation, Reply]]:
        """Continue generation; return the finished replies, in the order in which they finished."""
        ...

    def forget(self, conversation: Conversation) -> None:
        """Discard the cached state of a conversation that is over."""
        ...


@runtime_checkable
class TokenStream(ReplyStream, Protocol):
    """A reply stream whose replies can be read while they grow, and ended at any token."""

    def piece(self, conversation: Conversation) -> Piece | None:
        """Return what was added to a growing reply since the last call; None where nothing was."""
        ...

    def end(self, conversation: Conversation) -> Reply:
        """End a growing reply where it is; free its slot and return the reply so far."""
        ...


@runtime_checkable
class StreamingPolicy(Policy, Protocol):
    """A policy that supports continuous batching: replies need not begin and end together."""

    def stream(self, *, sampling: Sampling, slots: int) -> AbstractContextManager[ReplyStream]:
        """Open a stream with ``slots`` batch slots in which replies are generated."""
        ...


@runtime_checkable
class LocalPolicy(StreamingPolicy, Protocol):
    """A streaming policy whose model is in this process."""

    @property
    def device_type(self) -> str:
        """Type of the model's device, such as ``cpu`` or ``cuda``."""
        ...


class ReplySource(Protocol):
    """Replies of an `AsyncPolicy`, each requested by itself."""

    async def reply(self, conversation: Conversation) -> Reply:
        """Return the next text of a conversation; any number are requested at once.

        Raises:
            PolicyUnavailableError: The model is unreachable; only this conversation is lost.
        """
        ...


@runtime_checkable
class CachingSource(ReplySource, Protocol):
    """A source that caches the state of a conversation between its replies."""

    def forget(self, conversation: Conversation) -> None:
        """Discard the cached state of a conversation that is over."""
        ...


@runtime_checkable
class AsyncPolicy(Policy, Protocol):
    """A policy each of whose replies is requested by itself, so that no turn is a barrier."""

    def connect(self, *, sampling: Sampling) -> AbstractAsyncContextManager[ReplySource]:
        """Open a source of replies within the running event loop."""
        ...


class PolicyUnavailableError(RuntimeError):
    """The model is unavailable (server down, quota): an infrastructure failure, not an answer."""


class PolicyRefusedError(PolicyUnavailableError):
    """The server rejects every request (invalid key, address or model name)."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A conversation to learn from: loss on the assistant's texts only.

    Attributes:
        task: Task that it solves.
        messages: Whole conversation, assistant messages included.
        source: Teacher and style that produced it.
        tags: Labels.
    """

    task: Task
    messages: tuple[Message, ...]
    source: str = "teacher"
    tags: tuple[str, ...] = field(default=())
