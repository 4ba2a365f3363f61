"""Parsing of a server's chat completion: the model's text, whether it was cut, token counts.

Content comes as a text or as a list of parts. Parts that hold reasoning, and reasoning beside the
content (``reasoning_content``, ``reasoning``), are not part of the reply. An answer without text of
the model (a refusal, a call of the server's own tool, images) is a failure of the server, with a
message that describes it, and is never graded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ...envs.text.unicode_text import escape_surrogates

_THOUGHTS = frozenset(
    {"thinking", "redacted_thinking", "reasoning", "reasoning_text", "reasoning_content", "thought"}
)
_BESIDE = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_CUT = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})
_WITHHELD = frozenset(
    {"content_filter", "refusal", "safety", "recitation", "error", "abort", "aborted"}
    | {"cancelled", "timeout"}
)
_STOPPED = ("stop_reason", "matched_stop")  # of vLLM and our own server; of SGLang
_CALLED = frozenset({"tool_calls", "function_call"})
_SHOWN_CHARACTERS = 300
_STATUS = re.compile(r"[1-5][0-9]{2}")


class CompletionError(ValueError):
    """A server's answer contains no text of the model.

    Attributes:
        status: HTTP status that the answer names, where it is an error itself.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Completion:
    """A server's answer.

    Attributes:
        text: Text of the model, without reasoning that the server returns separately.
        is_cut: Whether a token limit ended it.
        new_tokens: Number of generated tokens by the server's count; 0 where it does not count.
        read_tokens: Number of prompt tokens by the server's count; 0 where it does not count.
        names_end: Whether the server says if a stop text ended it, and which.
        named_stop: Stop text that the server names; None where none ended it, or it is not known.
    """

    text: str
    is_cut: bool = False
    new_tokens: int = 0
    read_tokens: int = 0
    names_end: bool = False
    named_stop: str | None = None


def read_completion(data: object) -> Completion:
    """Read the first choice of a chat completion.

    Raises:
        CompletionError: ``data`` is not a chat completion, or contains no text of the model.
    """
    answer = _mapping(data, "the answer")
    choices = answer.get("choices")
    if answer.get("error") or (not choices and answer.get("error") is not None):
        raise _named_error(answer["error"])
    if not choices and answer.get("object") == "error":
        raise _named_error(answer)
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        raise CompletionError(f"not a chat completion, it has no choices: {_shown(data)}")
    choice = _mapping(choices[0], "choices[0]")
    if choice.get("error") is not None:
        raise _named_error(choice["error"])
    named = choice.get("finish_reason")
    reason = named.lower() if isinstance(named, str) else ""
    if reason in _WITHHELD:
        raise CompletionError(f"the server withheld the reply (finish_reason {named!r})")
    named_stops = [choice[name] for name in _STOPPED if name in choice]
    usage = answer.get("usage")
    counted = cast(Mapping[str, Any], usage) if isinstance(usage, Mapping) else {}
    return Completion(
        text=escape_surrogates(
            _text_of_message(_mapping(choice.get("message"), "message"), reason)
        ),
        is_cut=reason in _CUT,
        new_tokens=_count(counted.get("completion_tokens")),
        read_tokens=_count(counted.get("prompt_tokens")),
        names_end=bool(named_stops),
        named_stop=next(
            (escape_surrogates(stop) for stop in named_stops if isinstance(stop, str)), None
        ),
    )


def text_of_content(content: object) -> str:
    """Return the text of a message's content, which is a text, or parts as mappings or objects.

    >>> text_of_content([{"type": "thinking", "thinking": "4?"}, {"type": "text", "text": "5"}])
    '5'

    Raises:
        CompletionError: A part is neither text nor reasoning.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise CompletionError(
            f"a message's content is a text or a list of parts, got {_shown(content)}"
        )
    return "".join(_text_of_part(part) for part in cast(Sequence[object], content))


def _text_of_message(message: Mapping[str, Any], reason: str) -> str:
    """Return the message's text; an empty one only where nothing else replaces it."""
    text = text_of_content(message.get("content"))
    if text.strip():
        return text
    if message.get("refusal"):
        raise CompletionError(f"the model refused: {_shown(message['refusal'])}")
    if reason in _CALLED or any(message.get(name) for name in _CALLED):
        raise CompletionError(
            "the model called a tool of the server's instead of writing text; "
            f"start the server without tools: {_shown(message)}"
        )
    if "content" not in message and not any(message.get(name) for name in _BESIDE):
        raise CompletionError(f"the message has no content: {_shown(message)}")
    if message.get("audio") or message.get("images"):
        raise CompletionError("the message contains audio or images, and no text")
    return text


def _text_of_part(part: object) -> str:
    if isinstance(part, str):
        return part
    kind, text, is_thought = (_field(part, name) for name in ("type", "text", "thought"))
    if (isinstance(kind, str) and kind in _THOUGHTS) or is_thought is True:
        return ""
    if isinstance(text, str) and (kind is None or kind in ("text", "output_text")):
        return text
    if kind == "refusal":
        raise CompletionError(f"the model refused: {_shown(_field(part, 'refusal'))}")
    raise CompletionError(f"a part of the content is neither text nor thought: {_shown(part)}")


def _field(part: object, name: str) -> object:
    if isinstance(part, Mapping):
        return cast(Mapping[str, object], part).get(name)
    return getattr(part, name, None)


def _named_error(error: object) -> CompletionError:
    fields = cast(Mapping[str, Any], error) if isinstance(error, Mapping) else {}
    code = str(fields.get("code", fields.get("status")))
    status = int(code) if _STATUS.fullmatch(code) else None
    words = fields.get("message", error)
    return CompletionError(f"the server answered with an error: {_shown(words)}", status=status)


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise CompletionError(f"not a chat completion, {name} is not an object: {_shown(value)}")
    return cast(Mapping[str, Any], value)


def _count(value: object) -> int:
    """Parse a token count; an invalid count reads as 0 and does not fail the reply."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value < math.inf else 0


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    short = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return escape_surrogates(short)
