"""The exact token ids of conversations that a server answered, from which the next turn continues.

A request contains texts only, and a text may have several encodings: without the sampled ids a
conversation over HTTP could continue differently from the same one in process.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from ...envs.types import Message, Tokens
from ...policies.interface import Conversation, Reply
from ...policies.models.pictures import picture_digest

_MOST = 4096  # maximum number of cached conversations


class TokenRecords:
    """Least recently used cache of token ids, by messages and the seed that the request named."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._known: OrderedDict[bytes, Tokens] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, conversations: Iterable[Conversation], *, is_seeded: bool = True) -> None:
        """Set the token ids of each conversation's turns so far, where they are known.

        Args:
            conversations: Conversations of a request.
            is_seeded: Whether the request named a seed; else each of its turns has another one.
        """
        for one in conversations:
            last = _last_reply(one.messages)
            if last is None:
                continue
            key = _digest(one.messages[: last + 1], one.seed if is_seeded else None)
            with self._lock:
                one.tokens = self._known.pop(key, None)

    def keep(
        self, answered: Iterable[tuple[Conversation, Reply]], *, is_seeded: bool = True
    ) -> None:
        """Record the token ids of answered conversations; see `find`."""
        for one, reply in answered:
            if one.tokens is None:
                continue
            said = [*one.messages, Message("assistant", (reply.text,))]
            key = _digest(said, one.seed if is_seeded else None)
            with self._lock:
                self._known[key] = one.tokens
                while len(self._known) > self._most:
                    self._known.popitem(last=False)


def _last_reply(messages: Sequence[Message]) -> int | None:
    places = [index for index, message in enumerate(messages) if message.role == "assistant"]
    return places[-1] if places else None


def _digest(messages: Sequence[Message], seed: int | None) -> bytes:
    sha = hashlib.sha256(f"{seed}".encode())
    for message in messages:
        sha.update(f"\x00{message.role}".encode())
        for part in message.parts:
            kind, data = (
                (b"text", part.encode()) if isinstance(part, str) else (b"", picture_digest(part))
            )
            sha.update(b"\x01%b %d " % (kind, len(data)) + data)
    return sha.digest()
