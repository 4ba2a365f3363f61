"""Chat completions in OpenAI's format: requests, replies and errors."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast
from uuid import uuid4

from ...envs.picture import PictureError, load_picture
from ...envs.protocol import system_prompt
from ...envs.text.unicode_text import escape_surrogates, lone_surrogate
from ...envs.types import Message, Part
from ...policies.interface import Conversation, Reply, Sampling

MOST_CHOICES = 16
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class RequestError(ValueError):
    """A request cannot be served.

    Attributes:
        status: Status code of the HTTP response.
        kind: OpenAI's ``type`` of the error.
        parameter: Field at fault; None for the request as a whole.
        retry_seconds: Seconds to wait before a retry; None if a retry would not help.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        parameter: str | None = None,
        retry_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.parameter = parameter
        self.retry_seconds = retry_seconds

    def body(self) -> dict[str, Any]:
        """Return the error in OpenAI's format."""
        error = {"message": str(self), "type": self.kind, "param": self.parameter, "code": None}
        return {"error": error}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat request.

    Attributes:
        messages: The conversation so far.
        sampling: Sampling parameters.
        seed: Random seed of the first choice; the following choices count up from it.
        choices: Number of replies.
        wants_logprobs: Whether to return the log-probability of each token.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int
    choices: int
    wants_logprobs: bool

    def conversations(self, own_prompt: str | None = None) -> list[Conversation]:
        """Return one conversation per choice.

        Args:
            own_prompt: System prompt that the policy was trained with (None: any, ``""``: none);
                it replaces the environment's usual system message.
        """
        messages = list(self.messages)
        is_usual = messages[0].role == "system" and messages[0].text == system_prompt("code")
        if own_prompt is not None and is_usual:
            messages[:1] = [Message("system", (own_prompt,))] if own_prompt else []
        turn = sum(message.role == "assistant" for message in messages)
        return [
            Conversation(list(messages), seed=self.seed + number, turn=turn)
            for number in range(self.choices)
        ]


def read_request(body: object) -> ChatRequest:
    """Parse the body of a request.

    Raises:
        RequestError: A field is missing, of the wrong type, or not supported.
    """
    if not isinstance(body, Mapping):
        raise RequestError("the body must be a JSON object")
    fields = cast(Mapping[str, Any], body)
    if fields.get("stream"):
        raise RequestError("streaming is not supported; leave stream out", parameter="stream")
    for name in ("tools", "functions", "stop", "response_format"):
        if fields.get(name):
            raise RequestError(f"{name} is not supported; leave it out", parameter=name)
    most = fields.get("max_completion_tokens")
    most_name = "max_tokens" if most is None else "max_completion_tokens"
    sampling = Sampling(
        temperature=float(_number(fields, "temperature", 1.0, low=0.0, high=2.0)),
        top_p=float(_number(fields, "top_p", 1.0, low=1e-6, high=1.0)),
        top_k=int(_number(fields, "top_k", 0, low=0, high=10**6, whole=True)),
        max_new_tokens=int(_number(fields, most_name, 512, low=1, high=10**6, whole=True)),
    )
    return ChatRequest(
        _messages(fields.get("messages")),
        sampling,
        seed=int(_number(fields, "seed", 0, low=-(2**63), high=2**63, whole=True)),
        choices=int(_number(fields, "n", 1, low=1, high=MOST_CHOICES, whole=True)),
        wants_logprobs=bool(fields.get("logprobs")),
    )


def completion(
    model: str,
    request: ChatRequest,
    answered: Sequence[tuple[Conversation, Reply]],
    token_text: Any = None,  # noqa: ANN401 - a function from an id to its text
) -> dict[str, Any]:
    """Return the body of the response; tokens are counted as the policy generated them."""
    choices: list[dict[str, Any]] = []
    written = read = 0
    for number, (conversation, reply) in enumerate(answered):
        tokens = conversation.tokens
        written += reply.new_tokens
        if tokens is not None and number == 0:
            read = len(tokens.ids) - reply.new_tokens
        choice: dict[str, Any] = {
            "index": number,
            "message": {"role": "assistant", "content": escape_surrogates(reply.text)},
            "finish_reason": "length" if reply.is_cut else "stop",
            "logprobs": None,
        }
        if request.wants_logprobs and tokens is not None:
            start = len(tokens.ids) - reply.new_tokens
            pairs = zip(tokens.ids[start:], tokens.log_probabilities[start:], strict=True)
            content = [
                {"token": token_text(one), "logprob": value, "bytes": None, "top_logprobs": []}
                for one, value in pairs
            ]
            choice["logprobs"] = {"content": content}
        choices.append(choice)
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": usage,
    }


def _number(
    fields: Mapping[str, Any],
    name: str,
    default: float,
    *,
    low: float,
    high: float,
    whole: bool = False,
) -> float:
    value = fields.get(name)
    if value is None:
        return default
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not (is_number and low <= value <= high):
        kind = "a whole number" if whole else "a number"
        raise RequestError(f"{name} must be {kind} from {low} to {high}", parameter=name)
    return value


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise RequestError("messages must be a list of at least one message", parameter="messages")
    found = tuple(_message(one, f"messages[{number}]") for number, one in enumerate(value))
    if found[-1].role == "assistant":
        raise RequestError(
            "the last of messages is by the assistant: expected one by the user",
            parameter="messages",
        )
    return found


def _message(value: object, name: str) -> Message:
    fields = cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}
    role = _ROLES.get(str(fields.get("role")))
    if role is None:
        known = ", ".join(_ROLES)
        raise RequestError(f"{name}.role must be one of {known}", parameter=f"{name}.role")
    content = fields.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise RequestError(
            f"{name}.content must be a text or a list of parts", parameter=f"{name}.content"
        )
    parts = tuple(_part(one, f"{name}.content[{n}]") for n, one in enumerate(content))
    return Message(cast(Literal["system", "user", "assistant"], role), parts)


def _whole_text(text: str, name: str) -> str:
    half = lone_surrogate(text)
    if half is not None:
        raise RequestError(f"{name} contains {half}, half of a surrogate pair", parameter=name)
    return text


def _part(value: object, name: str) -> Part:
    fields = cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}
    if fields.get("type") == "text" and isinstance(fields.get("text"), str):
        return _whole_text(str(fields["text"]), name)
    if fields.get("type") != "image_url":
        raise RequestError(f"{name} must be a text or an image_url part", parameter=name)
    link = fields.get("image_url")
    address = str(cast(Mapping[str, Any], link).get("url") if isinstance(link, Mapping) else link)
    head, _, data = address.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise RequestError(
            f"{name}: images are accepted as data URLs (data:image/png;base64,…) only",
            parameter=name,
        )
    try:
        return load_picture(base64.b64decode(data, validate=True))
    except (ValueError, PictureError) as error:  # letters beyond ASCII are a plain ValueError
        raise RequestError(f"{name}: {error}", parameter=name) from error
