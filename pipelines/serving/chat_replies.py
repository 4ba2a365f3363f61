"""Chat completions in OpenAI's format, whole or as the chunks of a stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from .reply_writer import Delta, Token


class ChatReply:
    """Body, or chunks, of the response to one request.

    Tokens are counted as the policy generated them.

    Args:
        model: Name of the model.
        token_text: Function that returns the text of a token; None for no log-probabilities.
        names_stop: Whether the end of a reply names the stop text (``stop_reason``, of vLLM).
    """

    def __init__(
        self,
        model: str,
        token_text: Callable[[int], str] | None = None,
        *,
        names_stop: bool = False,
    ) -> None:
        self._head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}
        self._token_text = token_text
        self._names_stop = names_stop
        self._read = self._written = 0
        self._begun: set[int] = set()

    def whole(self, deltas: Sequence[Delta]) -> dict[str, Any]:
        """Return the body of the whole response."""
        choices: list[dict[str, Any]] = []
        for number in sorted({one.choice for one in deltas}):
            own = [one for one in deltas if one.choice == number]
            message = {"role": "assistant", "content": "".join(one.text for one in own)}
            tokens = [token for one in own for token in one.tokens]
            choices.append(self._choice(own[-1], tokens) | {"message": message})
        self._count(deltas)
        kind = {"object": "chat.completion"}
        return self._head | kind | {"choices": choices, "usage": self._usage()}

    def chunks(self, delta: Delta, *, with_usage: bool) -> Iterator[dict[str, Any]]:
        """Return the chunks of a part: the role before the first text, the end after the last.

        Args:
            delta: Part of a reply.
            with_usage: Whether `usage_chunk` follows: OpenAI then names the field in each chunk.
        """
        self._count([delta])
        head = self._head | {"object": "chat.completion.chunk"}
        head |= {"usage": None} if with_usage else {}
        if delta.choice not in self._begun:
            self._begun.add(delta.choice)
            begin = self._choice(Delta(delta.choice, ""), ())
            yield head | {"choices": [begin | {"delta": {"role": "assistant", "content": ""}}]}
        going = self._choice(Delta(delta.choice, delta.text), delta.tokens)
        if delta.text or going["logprobs"]:
            yield head | {"choices": [going | {"delta": {"content": delta.text}}]}
        if delta.end is not None:
            yield head | {"choices": [self._choice(delta, ()) | {"delta": {}}]}

    def usage_chunk(self) -> dict[str, Any]:
        """Return the last chunk of a stream, which counts the tokens of all choices."""
        kind = {"object": "chat.completion.chunk"}
        return self._head | kind | {"choices": [], "usage": self._usage()}

    def _choice(self, delta: Delta, tokens: Sequence[Token]) -> dict[str, Any]:
        logprobs = None
        if self._token_text is not None and tokens:
            content = [
                {"token": self._token_text(one), "logprob": value, "bytes": None}
                | {"top_logprobs": []}
                for one, value in tokens
            ]
            logprobs = {"content": content}
        choice: dict[str, Any] = {"index": delta.choice, "finish_reason": None}
        if delta.end is not None:
            choice["finish_reason"] = delta.end.finish_reason
        if delta.end is not None and self._names_stop:
            choice["stop_reason"] = delta.end.stop_text
        return choice | {"logprobs": logprobs}

    def _count(self, deltas: Iterable[Delta]) -> None:
        for one in deltas:
            if one.end is not None:
                self._written += one.end.new_tokens
                self._read = max(self._read, one.end.prompt_tokens)  # the same in all choices

    def _usage(self) -> dict[str, int]:
        read, written = self._read, self._written
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
