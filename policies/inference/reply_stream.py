"""Reply stream over the engine: from messages to exact ids, and from drawn ids to replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...envs.types import Tokens, WeightSpan
from ..interface import Conversation, Piece, Reply, Sampling
from ..models.token_model import TokenModel
from .engine import Completion, Prompt, Slots
from .key_value_cache import RowStates
from .prompts import extend_tokens, images_of, new_token_limit, prompt_ids

Kept = tuple[Tokens, RowStates]
"""A record of ids, and its keys and values; they are valid for this very object."""
_NO_CHARACTER = "\ufffd"  # stands for the bytes of a character that is not complete yet


@dataclass(slots=True, eq=False)
class _Growing:
    """A reply in generation.

    Attributes:
        conversation: Conversation that it belongs to.
        prompt: Prompt of the conversation.
        completion: Ids so far.
        context: First id of the last piece: a tokenizer may decode an id by the one before it.
        read: Number of ids whose text was handed out.
    """

    conversation: Conversation
    prompt: Prompt
    completion: Completion = field(default_factory=Completion)
    context: int = 0
    read: int = 0

    def piece(self, decode: Callable[[Sequence[int]], str]) -> Piece | None:
        """Return the text since the last call; None while it ends within a character."""
        ids = self.completion.ids
        text = decode(ids[self.context :])
        before = len(decode(ids[self.context : self.read]))
        if len(text) <= before or text.endswith(_NO_CHARACTER):
            return None
        begin = self.read
        scores = self.completion.log_probabilities[begin:]
        self.context, self.read = begin, len(ids)
        return Piece(text[before:], tuple(ids[begin:]), tuple(scores))


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
        self._asked: dict[int, _Growing] = {}  # by the identity of the conversation
        self._growing: dict[int, _Growing] = {}  # by the identity of the completion
        self._cut: list[_Growing] = []
        self._version: str | None = None

    @property
    def free(self) -> int:
        """Number of conversations that can still join."""
        return self._slots.free

    @property
    def is_busy(self) -> bool:
        """Whether a reply is due."""
        return bool(self._asked)

    def join(self, conversations: Sequence[Conversation]) -> None:
        """Prefill the new messages of each conversation and begin its next reply."""
        asked = [_Growing(one, self._prompt(one)) for one in conversations]
        begun = [one for one in asked if one.prompt.limit > 0]
        completions = self._slots.join([one.prompt for one in begun])
        for one, completion in zip(begun, completions, strict=True):
            one.completion = completion
            self._growing[id(completion)] = one
        self._cut += [one for one in asked if one.prompt.limit <= 0]
        self._asked |= {id(one.conversation): one for one in asked}

    def advance(self) -> list[tuple[Conversation, Reply]]:
        """Draw a token of each reply; return the finished replies."""
        done, self._cut = self._cut, []
        done += [self._growing.pop(id(completion)) for completion in self._slots.advance()]
        for one in done:
            del self._asked[id(one.conversation)]
        return [(one.conversation, self._finish(one)) for one in done]

    def piece(self, conversation: Conversation) -> Piece | None:
        """Return what was added to a growing reply since the last call; None where nothing was."""
        return self._asked[id(conversation)].piece(self._model.chat.decode)

    def end(self, conversation: Conversation) -> Reply:
        """End a growing reply where it is; free its slot and return the reply so far."""
        one = self._asked.pop(id(conversation))
        if one in self._cut:
            self._cut.remove(one)
        else:
            self._slots.drop(self._growing.pop(id(one.completion)).completion)
        return replace(self._finish(one), is_cut=False)

    def change_weights(self, version: str) -> None:
        """Note that the model has other weights now, and discard all keys and values.

        Args:
            version: Name of the weights, which is recorded with each id from then on.
        """
        self._version = version
        self.kept.clear()
        self._known.clear()

    def forget(self, conversation: Conversation) -> None:
        """Discard the keys and values of a conversation that is over."""
        self.kept.pop(id(conversation.tokens), None)

    def _finish(self, one: _Growing) -> Reply:
        completion = one.completion
        count = len(completion.ids)
        spans = [WeightSpan(self._version, 0, count)] if self._version and count else []
        tokens = one.conversation.tokens = extend_tokens(
            one.conversation,
            one.prompt.ids,
            completion.ids,
            completion.log_probabilities,
            images=len(one.prompt.images),
            weight_versions=spans,
        )
        if tokens is not None and completion.states is not None:
            self.kept[id(tokens)] = tokens, completion.states
        text = self._model.chat.decode(completion.ids)
        return Reply(text, is_cut=not completion.is_finished, new_tokens=count)

    def _prompt(self, conversation: Conversation) -> Prompt:
        ids = prompt_ids(self._model.chat, conversation)
        limit = new_token_limit(self._sampling, len(ids))
        past = self._take_past(conversation.tokens)
        images = images_of(conversation)
        return Prompt(ids, images, conversation.seed, conversation.turn, limit, past)

    def _take_past(self, tokens: Tokens | None) -> RowStates | None:
        """Remove and return the keys and values of this very record."""
        past = self.kept.pop(id(tokens), None) or self._known.pop(id(tokens), None)
        return past[1] if past is not None and past[0] is tokens else None
