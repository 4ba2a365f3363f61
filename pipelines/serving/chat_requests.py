"""Chat requests in OpenAI's format: what a body may contain, and what is read from it."""

from __future__ import annotations

import base64
import json
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from ...envs.picture import load_picture
from ...envs.protocol import system_prompt
from ...envs.text.unicode_text import lone_surrogate
from ...envs.types import Message, Part
from ...policies.interface import Conversation, Sampling
from .request_error import RequestError

MOST_CHOICES = 16
MOST_STOPS = 4
LONGEST_STOP = 1000


def _whole_text(text: object) -> object:
    half = lone_surrogate(text) if isinstance(text, str) else None
    if half is not None:
        raise ValueError(f"contains {half}, half of a surrogate pair")
    return text


def _part(value: object) -> Part:
    fields = cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}
    if fields.get("type") == "text" and isinstance(fields.get("text"), str):
        return str(_whole_text(fields["text"]))
    if fields.get("type") != "image_url":
        raise ValueError("must be a text or an image_url part")
    link = fields.get("image_url")
    address = str(cast(Mapping[str, Any], link).get("url") if isinstance(link, Mapping) else link)
    head, _, data = address.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise ValueError("images are accepted as data URLs (data:image/png;base64,…) only")
    return load_picture(base64.b64decode(data, validate=True))


def _parts(content: object) -> object:
    if not isinstance(content, str | list):
        raise ValueError("must be a text or a list of parts")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _no_feature(value: object) -> object:
    if value:
        raise ValueError("is not supported; leave it out")
    return value


def _texts(stop: object) -> object:
    if not isinstance(stop, str | list):
        raise ValueError(f"must be a text or a list of up to {MOST_STOPS} texts")
    return [stop] if isinstance(stop, str) and stop else stop or []


_Unsupported = Annotated[Any, AfterValidator(_no_feature)]
_Stop = Annotated[
    str, BeforeValidator(_whole_text), Field(min_length=1, max_length=LONGEST_STOP, strict=True)
]
_Tokens = Annotated[int, Field(ge=1, le=10**6, strict=True)]


class ChatMessage(BaseModel):
    """A message of a chat request; ``developer`` is another name of ``system``."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Annotated[Any, PlainValidator(_part)]], BeforeValidator(_parts)]

    @model_validator(mode="before")
    @classmethod
    def _fields(cls, value: object) -> object:
        return value if isinstance(value, Mapping) else {}

    def message(self) -> Message:
        """Return the message as policies see it."""
        role = "system" if self.role == "developer" else self.role
        return Message(role, tuple(self.content))


class StreamOptions(BaseModel):
    """Options of a streamed reply."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A chat request; a field that is null counts as left out, an unknown one is ignored."""

    model: Any = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    temperature: float = Field(1.0, ge=0.0, le=2.0, strict=True)
    top_p: float = Field(1.0, ge=1e-6, le=1.0, strict=True)
    top_k: int = Field(0, ge=0, le=10**6, strict=True)
    max_tokens: _Tokens = 512
    max_completion_tokens: _Tokens | None = None
    seed: int | None = Field(None, ge=-(2**63), le=2**63, strict=True)
    n: int = Field(1, ge=1, le=MOST_CHOICES, strict=True)
    stop: Annotated[list[_Stop], BeforeValidator(_texts), Field(max_length=MOST_STOPS)] = []
    include_stop_str_in_output: bool = False
    logprobs: bool = False
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    tools: _Unsupported = None
    functions: _Unsupported = None
    response_format: _Unsupported = None

    @model_validator(mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        fields = cast(Mapping[str, Any], value) if isinstance(value, Mapping) else None
        return {k: v for k, v in fields.items() if v is not None} if fields is not None else value

    @property
    def sampling(self) -> Sampling:
        """Sampling parameters, without the stop texts: requests in a batch may differ in those."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_new_tokens=self.max_completion_tokens or self.max_tokens,
        )

    def conversations(self, own_prompt: str | None = None, *, seed: int = 0) -> list[Conversation]:
        """Return one conversation per choice; their seeds count up from the request's.

        Args:
            own_prompt: System prompt that the policy was trained with (None: any, ``""``: none);
                it replaces the environment's usual system message.
            seed: Seed of a request that names none.
        """
        messages = [one.message() for one in self.messages]
        is_usual = messages[0].role == "system" and messages[0].text == system_prompt("code")
        if own_prompt is not None and is_usual:
            messages[:1] = [Message("system", (own_prompt,))] if own_prompt else []
        turn = sum(message.role == "assistant" for message in messages)
        first = seed if self.seed is None else self.seed
        return [
            Conversation(list(messages), seed=first + number, turn=turn) for number in range(self.n)
        ]


def read_request(data: bytes | bytearray) -> ChatRequest:
    """Parse the body of a request.

    Raises:
        RequestError: It is not JSON, or a field is missing, invalid or not supported.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error
    if not isinstance(body, Mapping):
        raise RequestError("the body must be a JSON object")
    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as error:
        raise _first_fault(error) from error
    if request.messages[-1].role == "assistant":
        raise RequestError(
            "the last of messages is by the assistant: expected one by the user",
            parameter="messages",
        )
    return request


def _first_fault(error: ValidationError) -> RequestError:
    fault = error.errors(include_url=False)[0]
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault["loc"])
    name = "".join(steps).removeprefix(".")
    if "error" in (context := fault.get("ctx", {})):  # one of the checks above
        return RequestError(f"{name} {context['error']}", parameter=name)
    came = "" if fault["type"] == "missing" else f", got {reprlib.repr(fault['input'])}"
    return RequestError(f"{name}: {fault['msg']}{came}", parameter=name)
