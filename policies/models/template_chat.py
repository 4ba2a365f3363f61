"""Chat encoding by a model's own chat template; no text can forge a control token.

The template is rendered with markers in place of the texts. Its output around the markers is split
at the control tokens; the texts are encoded without control tokens. Any template works that writes
each text once and in order, and a placeholder for each image. Changes that a template makes to the
texts themselves (such as stripping them) are not applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...envs.types import Message, Part
from .chat_tokens import ChatTokenizer, Encoded

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedTokenizerBase

_MARK = re.compile("\ue000([0-9]+)\ue001")
_SYSTEM_GAP = "\n\n"
_BEGUN = (Message("user", ("u",)), Message("assistant", ("a",)))


@dataclass(frozen=True, slots=True, eq=False)
class PictureWords:
    """Prompt format of an image in a model family.

    Attributes:
        placeholder: Placeholder of an image in the chat template.
        image_token: Control token that stands for one image feature.
        text: Function that returns the text of a whole image, control tokens as text.
    """

    placeholder: str
    image_token: str
    text: Callable[[Image.Image], str]


class TemplateTokenizer(ChatTokenizer):
    """Encodes messages in the layout of a chat template.

    Args:
        tokenizer: Fast Hugging Face tokenizer.
        template: Chat template (Jinja).
        words: Prompt format of images.

    Raises:
        ValueError: The template drops texts or images, or does not end a turn with a control
            token; the tokenizer lacks a control token, or cannot write one as plain text.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, template: str, words: PictureWords
    ) -> None:
        self._adopt(tokenizer)
        self._template = template
        self._words = words
        self._layouts: dict[tuple[Any, ...], str] = {}
        self.image_id = self._control(words.image_token)
        self._controls = self._special_tokens()
        self.control_ids = frozenset(self._controls.values())
        self._splitter = _splitter(self._controls)
        self._takes_system = True
        self._check_layout()
        self._takes_system = self._keeps_system()
        self.lead, self.end_id = self._turn_edges()
        self._check_plain_text()

    @property
    def placeholder_id(self) -> int:
        """Id that stands for a whole image where an engine expands images itself."""
        return self._controls[self._words.placeholder]

    def image_ids(self, image: Image.Image) -> tuple[int, ...]:
        """Return the ids of an image in a prompt, from its first control token to its last."""
        return tuple(self._join([(self._words.text(image).strip(), True)]))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of sampled ids, without the end of the turn and the lead."""
        return super().decode(ids).removeprefix(self.lead)

    def open_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Encode a conversation so far and open the assistant's turn."""
        return self._ids(messages, self._render(self._as_taken(messages), is_open=True))

    def after_reply(self, messages: Sequence[Message]) -> list[int]:
        """Encode the text after a sampled end of turn: new messages, and the next turn's start."""
        return self._since((*_BEGUN, *messages), is_open=True)

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """Encode a whole conversation exactly as a rollout would build it."""
        ids: list[int] = []
        completion_mask: list[bool] = []
        since: list[Message] = []
        for message in messages:
            if message.role != "assistant":
                since.append(message)
                continue
            asked = self.after_reply(since) if ids else self.open_prompt(since)
            own = [*self.encode_text(self.lead + message.text), self.end_id]
            ids += asked + own
            completion_mask += [False] * len(asked) + [True] * len(own)
            since = []
        if since or ids:
            rest = self._since((*_BEGUN, *since), is_open=False) if ids else self._whole(since)
            ids += rest
            completion_mask += [False] * len(rest)
        images = tuple(image for message in messages for image in message.images)
        return Encoded(tuple(ids), tuple(completion_mask), images)

    def _whole(self, messages: Sequence[Message]) -> list[int]:
        return self._ids(messages, self._render(self._as_taken(messages), is_open=False))

    def _since(self, messages: Sequence[Message], *, is_open: bool) -> list[int]:
        """Encode the messages after the end of the turn in `_BEGUN`."""
        rendered = self._render(messages, is_open=is_open)
        _, _, rest = rendered.partition(_mark(1))
        ids = self._ids(messages, rest)
        return ids[ids.index(self.end_id) + 1 :]

    def _as_taken(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Merge a system message into the first user message, where the template has none."""
        if self._takes_system or not messages or messages[0].role != "system":
            return messages
        first, *rest = messages[1:] or [Message("user", ())]
        return [Message(first.role, (messages[0].text + _SYSTEM_GAP, *first.parts)), *rest]

    def _render(self, messages: Sequence[Message], *, is_open: bool) -> str:
        """Render messages with the template: markers for texts, placeholders for images."""
        shape = (is_open, *((m.role, *(isinstance(p, str) for p in _parts(m))) for m in messages))
        if shape not in self._layouts:
            self._layouts[shape] = self._lay_out(messages, is_open=is_open)
        return self._layouts[shape]

    def _lay_out(self, messages: Sequence[Message], *, is_open: bool) -> str:
        number = 0
        chat: list[dict[str, Any]] = []
        for message in messages:
            content: list[dict[str, str]] = []
            for part in _parts(message):
                if isinstance(part, str):
                    content.append({"type": "text", "text": _mark(number)})
                    number += 1
                else:
                    content.append({"type": "image"})
            chat.append({"role": message.role, "content": content})
        tokenizer: Any = self.tokenizer
        return str(
            tokenizer.apply_chat_template(
                chat, chat_template=self._template, tokenize=False, add_generation_prompt=is_open
            )
        )

    def _ids(self, messages: Sequence[Message], rendered: str) -> list[int]:
        """Insert texts and images into the rendered template, and encode the result."""
        parts = [part for message in self._as_taken(messages) for part in _parts(message)]
        texts = [part for part in parts if isinstance(part, str)]
        images = [part for part in parts if not isinstance(part, str)]
        pieces: list[tuple[str, bool]] = []
        for index, piece in enumerate(_MARK.split(rendered)):
            if index % 2:
                pieces.append((texts[int(piece)], False))
                continue
            for place, around in enumerate(piece.split(self._words.placeholder)):
                if place:
                    pieces.append((self._words.text(images.pop(0)), True))
                pieces.append((around, True))
        return self._join(pieces)

    def _join(self, pieces: Sequence[tuple[str, bool]]) -> list[int]:
        """Encode pieces, adjacent texts joined; only flagged pieces can hold control tokens."""
        ids: list[int] = []
        text = ""
        for piece, may_control in pieces:
            for index, part in enumerate(self._splitter.split(piece) if may_control else [piece]):
                if index % 2:
                    ids += [*self.encode_text(text), self._controls[part]]
                    text = ""
                else:
                    text += part
        return ids + self.encode_text(text)

    def _special_tokens(self) -> Mapping[str, int]:
        added: Mapping[int, Any] = self.tokenizer.added_tokens_decoder
        found = {str(token.content): index for index, token in added.items() if token.special}
        return {**found, self._words.image_token: self.image_id}

    def _check_layout(self) -> None:
        """Reject a template that drops texts or images."""
        picture: Any = object()  # only its position matters
        asked = Message("user", (picture, "q"))
        rendered = self._render([asked, _BEGUN[1], Message("user", ("r", picture))], is_open=True)
        if _MARK.findall(rendered) != ["0", "1", "2"]:
            raise ValueError("its chat template does not show every text once and in order")
        if rendered.count(self._words.placeholder) != 2:
            raise ValueError(
                f"its chat template leaves no {self._words.placeholder} where pictures go"
            )

    def _keeps_system(self) -> bool:
        from jinja2 import TemplateError

        try:
            rendered = self._render([Message("system", ("s",)), _BEGUN[0]], is_open=True)
        except TemplateError:
            return False
        return _MARK.findall(rendered) == ["0", "1"]

    def _turn_edges(self) -> tuple[str, int]:
        """Return the lead between an opened turn and its text, and the id that ends a turn."""
        opened = self._render(_BEGUN[:1], is_open=True)
        rendered = self._render(_BEGUN, is_open=False)
        head, _, tail = rendered.partition(_mark(1))
        lead = head[len(opened) :] if head.startswith(opened) else ""
        end = self._splitter.search(tail)
        if end is None or tail[: end.start()].strip():
            raise ValueError("its chat template ends an assistant's turn without a control token")
        return lead, self._controls[end.group()]


def _splitter(controls: Mapping[str, int]) -> re.Pattern[str]:
    longest_first = sorted(controls, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


def _mark(number: int) -> str:
    return f"\ue000{number}\ue001"


def _parts(message: Message) -> list[Part]:
    """Return a message's parts, adjacent texts joined."""
    merged: list[Part] = []
    for part in message.parts:
        last = merged[-1] if merged else None
        if isinstance(part, str) and isinstance(last, str):
            merged[-1] = last + part
        else:
            merged.append(part)
    return merged
