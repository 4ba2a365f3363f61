"""A reply in parts: text is sent once it cannot be the beginning of a stop text."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...envs.text.unicode_text import escape_surrogates
from ...policies.interface import Conversation, Piece, Reply

Token = tuple[int, float]
"""Id and log-probability."""


@dataclass(frozen=True, slots=True)
class ReplyEnd:
    """End of a reply.

    Attributes:
        finish_reason: Whether the model or a stop text ended it, or the token limit.
        prompt_tokens: Number of prompt tokens; 0 for policies without tokens.
        new_tokens: Number of generated tokens, those of a stop text included.
        reply: Reply as it was generated; None where a stop text ended it.
        stop_text: Stop text that ended it; None where none did.
    """

    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    new_tokens: int
    reply: Reply | None
    stop_text: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """Part of a reply; all of them in order are the whole reply.

    Attributes:
        choice: Index of the reply among those to one request.
        text: Text that follows.
        tokens: Tokens that follow; a token that spans two parts is in the first one.
        end: End of the reply; None while it continues.
    """

    choice: int
    text: str
    tokens: tuple[Token, ...] = ()
    end: ReplyEnd | None = None


class StopFilter:
    """Ends a growing text before the first stop text, or after it.

    The first one is the one that is complete first; of several that end at the same character, the
    longest. The result does not depend on how the text was split.

    Args:
        stop: Stop texts, none of them empty.
        is_kept: Whether the stop text belongs to the text.

    Attributes:
        found: Stop text that was found; None until one is.
    """

    def __init__(self, stop: Sequence[str], *, is_kept: bool = False) -> None:
        self.found: str | None = None
        self._stop = stop
        self._is_kept = is_kept
        self._held = ""

    def add(self, text: str) -> str:
        """Add text; return the part that can be sent: no beginning of a stop text."""
        text = self._held + text
        found = [(at + len(one), at) for one in self._stop if (at := text.find(one)) >= 0]
        if found:
            end, begin = min(found)
            self.found, self._held = text[begin:end], ""
            return text[: end if self._is_kept else begin]
        held = max((_overlap(text, one) for one in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    @property
    def is_stopped(self) -> bool:
        """Whether a stop text was found."""
        return self.found is not None

    def end(self) -> str:
        """Return the text that was held back; it is no stop text, since the reply has ended."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of a text are the beginning of a stop text."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)


class ReplyWriter:
    """Turns one reply into deltas while it grows; read whole or in pieces, they join to the same.

    Args:
        choice: Index of the reply among those to one request.
        conversation: Conversation that it belongs to.
        stop: Stop texts.
        keeps_stop: Whether the stop text that ends it belongs to the reply.
    """

    def __init__(
        self,
        choice: int,
        conversation: Conversation,
        stop: Sequence[str],
        *,
        keeps_stop: bool = False,
    ) -> None:
        self.conversation = conversation
        self._choice = choice
        self._filter = StopFilter(stop, is_kept=keeps_stop)
        self._read = 0  # characters
        self._sent = 0
        self._tokens_read = 0
        self._waiting: deque[tuple[int, tuple[Token, ...]]] = deque()  # by where their text begins

    @property
    def is_stopped(self) -> bool:
        """Whether a stop text ended the reply."""
        return self._filter.is_stopped

    def write(self, piece: Piece) -> Delta | None:
        """Add a piece; return the part that can be sent; None if there is none."""
        tokens = tuple(zip(piece.ids, piece.log_probabilities, strict=True))
        text = self._add(piece.text, tokens)
        return Delta(self._choice, text, self._due_tokens()) if text else None

    def finish(self, reply: Reply) -> Delta:
        """End the reply; return the rest of it.

        Args:
            reply: The whole reply; its tokens are the last ones of the conversation.
        """
        record, text, whole = self.conversation.tokens, "", escape_surrogates(reply.text)
        read = 0 if record is None else len(record.ids) - reply.new_tokens
        if not self.is_stopped:
            start = read + self._tokens_read
            ids, scores = ((), ()) if record is None else (record.ids, record.log_probabilities)
            text = self._add(whole[self._read :], tuple(zip(ids, scores, strict=True))[start:])
        if not self.is_stopped:
            text += self._filter.end()
            self._sent = len(whole) + 1  # all tokens are due, the end of the turn included
        is_cut = reply.is_cut and not self.is_stopped
        kept = None if self.is_stopped else reply
        reason = "length" if is_cut else "stop"
        end = ReplyEnd(reason, read, reply.new_tokens, kept, self._filter.found)
        return Delta(self._choice, text, self._due_tokens(), end)

    def _add(self, text: str, tokens: tuple[Token, ...]) -> str:
        self._waiting.append((self._read, tokens))
        self._read += len(text)
        self._tokens_read += len(tokens)
        text = self._filter.add(text)
        self._sent += len(text)
        return text

    def _due_tokens(self) -> tuple[Token, ...]:
        """Remove and return the tokens whose text began before the end of the sent text."""
        due: list[Token] = []
        while self._waiting and self._waiting[0][0] < self._sent:
            due += self._waiting.popleft()[1]
        return tuple(due)
