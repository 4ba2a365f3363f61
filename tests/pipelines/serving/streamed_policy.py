"""A policy that streams the question as its reply, some characters per token."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

from codedance.envs.types import Tokens
from codedance.policies.interface import Piece, Reply

ENDLESS = "endless"
"""A question with an endless reply: only a disconnecting client frees its slot."""


class Typist:
    """Replies with the last message token by token; ids count the tokens of each conversation.

    Attributes:
        asked: Conversations, in the order of joining.
        joined_with: Their tokens at the time of joining.
        forgotten: Conversations whose state was dropped.
        may_open: Set if streams may open; clear it to collect requests.
        breaks_at: Number of tokens after which the model raises an error.
    """

    id = "typist"

    def __init__(self, size=2):
        self.size = size
        self.asked = []
        self.joined_with = []
        self.forgotten = []
        self.may_open = threading.Event()
        self.may_open.set()
        self.breaks_at = None

    def reply(self, conversations, *, sampling):
        raise AssertionError("a policy with tokens should be streamed")

    @contextlib.contextmanager
    def stream(self, *, sampling, slots):
        self.may_open.wait()
        yield _Typing(self, slots)


class _Typing:
    def __init__(self, typist, slots):
        self._typist, self._slots = typist, slots
        self._rows = {}

    @property
    def free(self):
        return self._slots - len(self._rows)

    def join(self, conversations):
        texts = [one.messages[-1].text for one in conversations]
        if "unreadable" in texts:
            raise ValueError("the image cannot be read")
        assert len(texts) <= self.free
        self._typist.asked += conversations
        self._typist.joined_with += [one.tokens for one in conversations]
        for one, text in zip(conversations, texts, strict=True):
            self._rows[id(one)] = [one, self._tokens(text), [], 0]

    def _tokens(self, text):
        if text == ENDLESS:
            return itertools.repeat("la ")
        size = self._typist.size
        return iter([text[at : at + size] for at in range(0, len(text), size)])

    def advance(self):
        time.sleep(0.001)  # simulates a model's time: an endless reply must not fill the memory
        done = []
        for one, tokens, written, _ in list(self._rows.values()):
            written.append(next(tokens, ""))
            if len(written) == self._typist.breaks_at:
                raise MemoryError("the accelerator is full")
            if not written[-1]:
                done.append((one, self.end(one)))
        return done

    def piece(self, conversation):
        row = self._rows[id(conversation)]
        _, _, written, read = row
        row[3] = len(written)
        new = written[read:]
        return Piece("".join(new), tuple(range(read, len(written))), (-0.5,) * len(new))

    def end(self, conversation):
        _, _, written, _ = self._rows.pop(id(conversation))
        count = len(written)
        conversation.tokens = Tokens(
            (100, *range(count)), (0.0, *(-0.5,) * count), (-1, *(0,) * count), 0
        )
        return Reply("".join(written), new_tokens=count)

    def forget(self, conversation):
        self._typist.forgotten.append(conversation)
