"""Reply stream over the engine: from messages to exact ids, and from drawn ids to replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...envs.types import Message, Tokens
from ..interface import Conversation, Reply, Sampling
from ..models.token_model import TokenModel
from .engine import Completion, Prompt, Slots
from .key_value_cache import RowStates

Kept = tuple[Tokens, RowStates]
"""A record of ids, and its keys and values; they are valid for this very object."""


class VisionLanguageStream:
    """Generates the replies of conversations that join and leave at any time.

    Args:
        model: Model that computes the next token.
        sampling: Sampling parameters.
        slots: Largest number of concurrent conversations.
        kept: Keys and values of earlier turns, by the identity of their record.
    """

    def __init__(
        self,
        model: TokenModel,
        sampling: Sampling,
        *,
        slots: int,
        kept: Mapping[int, Kept] | None = None,
    ) -> None:
        self.kept: dict[int, Kept] = {}
        self._model = model
        self._sampling = sampling
        self._slots = Slots(model, sampling, count=slots)
        self._known = dict(kept or {})
        self._asked: dict[int, tuple[Conversation, Prompt, Completion]] = {}
        self._cut: list[tuple[Conversation, Prompt]] = []

    @property
    def free(self) -> int:
        """Number of conversations that can still join."""
        return self._slots.free

    @property
    def is_busy(self) -> bool:
        """Whether a reply is due."""
        return bool(self._asked or self._cut)

    def join(self, conversations: Sequence[Conversation]) -> None:
        """Prefill the new messages of each conversation and begin its next reply."""
        begun: list[tuple[Conversation, Prompt]] = []
        for conversation in conversations:
            prompt = self._prompt(conversation)
            (begun if prompt.limit > 0 else self._cut).append((conversation, prompt))
        completions = self._slots.join([prompt for _, prompt in begun])
        for (conversation, prompt), completion in zip(begun, completions, strict=True):
            self._asked[id(completion)] = conversation, prompt, completion

    def advance(self) -> list[tuple[Conversation, Reply]]:
        """Draw a token of each reply; return the finished replies."""
        cut, self._cut = self._cut, []
        done = [self._finish(one, prompt, Completion()) for one, prompt in cut]
        for completion in self._slots.advance():
            conversation, prompt, _ = self._asked.pop(id(completion))
            done.append(self._finish(conversation, prompt, completion))
        return done

    def forget(self, conversation: Conversation) -> None:
        """Discard the keys and values of a conversation that is over."""
        self.kept.pop(id(conversation.tokens), None)

    def _finish(
        self, conversation: Conversation, prompt: Prompt, completion: Completion
    ) -> tuple[Conversation, Reply]:
        tokens = conversation.tokens = _extend(conversation, prompt, completion)
        if completion.states is not None:
            self.kept[id(tokens)] = tokens, completion.states
        text = self._model.chat.decode(completion.ids)
        return conversation, Reply(
            text, is_cut=not completion.is_finished, new_tokens=len(completion.ids)
        )

    def _prompt(self, conversation: Conversation) -> Prompt:
        chat, sampling = self._model.chat, self._sampling
        if conversation.tokens is None:
            ids = tuple(chat.open_prompt(conversation.messages))
        else:
            ids = conversation.tokens.ids
            if ids[-1] != chat.end_id:  # a turn that a limit or a stop text ended
                ids += (chat.end_id,)
            ids += tuple(chat.after_reply(_since_last_reply(conversation.messages)))
        images = [image for message in conversation.messages for image in message.images]
        limit = min(sampling.max_new_tokens, sampling.max_tokens - len(ids))
        past = self._take_past(conversation.tokens)
        return Prompt(ids, images, conversation.seed, conversation.turn, max(limit, 0), past)

    def _take_past(self, tokens: Tokens | None) -> RowStates | None:
        """Remove and return the keys and values of this very record."""
        past = self.kept.pop(id(tokens), None) or self._known.pop(id(tokens), None)
        return past[1] if past is not None and past[0] is tokens else None


def _since_last_reply(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the messages after the assistant's last one."""
    last = max(i for i, message in enumerate(messages) if message.role == "assistant")
    return messages[last + 1 :]


def _extend(conversation: Conversation, prompt: Prompt, completion: Completion) -> Tokens:
    """Append the prompt's new ids and the generated ids to the record of exact ids."""
    before = conversation.tokens or Tokens((), (), ())
    asked = len(prompt.ids) - len(before.ids)
    return Tokens(
        ids=prompt.ids + tuple(completion.ids),
        log_probabilities=(
            before.log_probabilities + (0.0,) * asked + tuple(completion.log_probabilities)
        ),
        turn_of=before.turn_of + (-1,) * asked + (conversation.turn,) * len(completion.ids),
        images=len(prompt.images),
    )
