"""Renderer for verifiers' training client: our exact ids, images included (tested with 0.4.0).

verifiers' `TrainClient` turns messages into ids with a renderer and sends them to an engine with
vLLM's route ``/inference/v1/generate``. This one encodes as our own policies do: printed text never
becomes a control token, and what the model sampled is never encoded again. For the families in
ChatML (Qwen2-VL, Qwen2.5-VL, Qwen3-VL, nano)::

    {"type": "train", "renderer": {"name": "custom", "import_path": RENDERER}}

Importing this module does not load verifiers; the class is created on first access.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from PIL import Image

from ...envs.types import Message
from .wire_messages import read_message

if TYPE_CHECKING:
    from ..models.chat_tokens import ChatTokenizer

__all__ = ["RENDERER", "VisualCodeRenderer"]  # noqa: F822  # pyright: ignore[reportUnsupportedDunderAll]

RENDERER = f"{__name__}.VisualCodeRenderer"
"""The class by its path, as the client's configuration names it."""

_PLACEHOLDER = Image.new("RGB", (1, 1))  # the engine expands one id for each image


def message_of(wire: Mapping[str, Any]) -> Message:
    """Return a message of the chat completion API with a placeholder for each image."""
    return read_message(wire, lambda _: _PLACEHOLDER)


def attributed(
    chat: ChatTokenizer, ids: Sequence[int], begin: int, messages: Sequence[Message]
) -> Any:  # noqa: ANN401 - the package's RenderedTokens
    """Return ids with the message that each belongs to; the first of the messages begins at one.

    Args:
        chat: Encoder of the messages.
        ids: Whole conversation.
        begin: Place of the first message's first id.
        messages: Messages from there on.
    """
    base: Any = import_module("renderers.base")
    owner = [-1] * begin
    for index, message in enumerate(messages):
        owner += [index] * len(chat.encode([message]).ids)
    return base.RenderedTokens(
        token_ids=list(ids),
        message_indices=owner + [-1] * (len(ids) - len(owner)),
        sampled_mask=[False] * len(ids),
        message_roles=[message.role for message in messages],
    )


def extended(chat: ChatTokenizer, ids: list[int], messages: Sequence[Message]) -> Any:  # noqa: ANN401
    """Return the ids of the conversation so far and of new messages, as verifiers' type."""
    if ids[-1] != chat.end_id:  # a limit ended the turn
        ids = [*ids, chat.end_id]
    begin = len(ids) + len(chat.encode_text("\n"))
    return attributed(chat, ids + chat.after_reply(messages), begin, messages)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, created on first access
    if name != "VisualCodeRenderer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _renderer_class()


@cache
def _renderer_class() -> Any:  # noqa: ANN401 - the interface of an untyped package
    base: Any = import_module("renderers.base")
    configs: Any = import_module("renderers.configs")

    class Config(configs.BaseRendererConfig):
        """No settings."""

    class VisualCodeRenderer:
        """Messages to ids and back, for one tokenizer."""

        config_class = Config
        supports_process_multimodal = True
        is_multimodal = True
        is_prefix_stable = True
        supports_tools = False

        def __init__(self, tokenizer: Any, config: Any) -> None:  # noqa: ANN401 - untyped
            from ..models.chat_tokens import ChatTokenizer

            self.config = config
            self._chat = ChatTokenizer(tokenizer, lambda _: 1)

        @property
        def mm_token_type_id_map(self) -> dict[int, int]:
            """The id that stands for an image, as verifiers marks it."""
            return {self._chat.image_id: 1}

        def render(self, messages: Sequence[Any], **options: Any) -> Any:  # noqa: ANN401
            """Encode a whole conversation."""
            own = [message_of(one) for one in messages]
            opens = options.get("add_generation_prompt", False)
            ids = self._chat.open_prompt(own) if opens else list(self._chat.encode(own).ids)
            return attributed(self._chat, ids, 0, own)

        def render_ids(self, messages: Sequence[Any], **options: Any) -> list[int]:  # noqa: ANN401
            """Encode a whole conversation, without attribution."""
            return list(self.render(messages, **options).token_ids)

        def bridge_to_next_turn(
            self,
            previous_prompt_ids: Sequence[int],
            previous_completion_ids: Sequence[int],
            new_messages: Sequence[Any],
            **_: Any,  # noqa: ANN401 - tools, images
        ) -> Any:  # noqa: ANN401
            """Append new messages to the ids of the turn before, which stay as they are."""
            ids = [*previous_prompt_ids, *previous_completion_ids]
            return extended(self._chat, ids, [message_of(one) for one in new_messages])

        def parse_response(self, token_ids: Sequence[int], **_: Any) -> Any:  # noqa: ANN401
            """Return the text of sampled ids; our environment reads the code in it."""
            return base.ParsedResponse(content=self._chat.decode(token_ids))

        def get_stop_token_ids(self) -> list[int]:
            """Return the id that ends a turn."""
            return [self._chat.end_id]

    return VisualCodeRenderer
