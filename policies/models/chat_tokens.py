"""Chat encoding: messages to token ids, in Qwen2.5-VL's ChatML; no text can forge control tokens.

Departures from the published chat template: no default system message is inserted, and text from
outside (questions, tool replies, errors) is encoded by a tokenizer without control tokens, so that
a printed ``<|im_end|>`` is plain text and never the end of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...envs.text.unicode_text import escape_surrogates
from ...envs.types import Message

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedTokenizerBase

_START = "<|im_start|>"
_END = "<|im_end|>"
_VISION_START = "<|vision_start|>"
_VISION_END = "<|vision_end|>"
_IMAGE = "<|image_pad|>"
_OTHER_CONTROLS = ("<|video_pad|>", "<|vision_pad|>", "<|endoftext|>")


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A conversation as token ids.

    Attributes:
        ids: Ids of the whole conversation, ``(length,)``.
        completion_mask: Which ids an assistant wrote, its ``<|im_end|>`` included, ``(length,)``.
        images: Images that the image tokens stand for, in order.
    """

    ids: tuple[int, ...]
    completion_mask: tuple[bool, ...]
    images: tuple[Image.Image, ...]


class ChatTokenizer:
    """Encodes messages piece by piece; ids that a model sampled are never encoded again.

    Args:
        tokenizer: Fast Hugging Face tokenizer with ChatML's control tokens.
        image_tokens: Function that returns the number of image tokens of an image.

    Attributes:
        lead: Prefix of a reply that is not part of its text.

    Raises:
        ValueError: The tokenizer lacks a control token, or cannot write one as plain text.
    """

    lead: str = ""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, image_tokens: Callable[[Image.Image], int]
    ) -> None:
        self._adopt(tokenizer)
        self._image_tokens = image_tokens
        self._start = self._control(_START)
        self.end_id = self._control(_END)
        self._vision_start = self._control(_VISION_START)
        self._vision_end = self._control(_VISION_END)
        self.image_id = self._control(_IMAGE)
        self._line_end = self.encode_text("\n")
        self.control_ids = self._find_controls()
        self._check_plain_text()

    def _adopt(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Store the tokenizer, and a copy of it without control tokens."""
        from tokenizers import Tokenizer

        if not tokenizer.is_fast:
            raise ValueError(
                f"ChatTokenizer needs a fast tokenizer (a tokenizer.json), got "
                f"{type(tokenizer).__name__}"
            )
        self.tokenizer = tokenizer
        # A separate copy: the flag below is state, and the original may be used elsewhere.
        backend: Any = tokenizer.backend_tokenizer
        self._plain = Tokenizer.from_str(backend.to_str())
        self._plain.encode_special_tokens = True
        self._plain.no_truncation()
        self._plain.no_padding()

    @property
    def forbidden_ids(self) -> frozenset[int]:
        """Ids excluded from sampling: every control token except the end of the turn."""
        return self.control_ids - {self.end_id}

    @property
    def placeholder_id(self) -> int:
        """Id that stands for a whole image where an engine expands images itself."""
        return self.image_id

    def image_ids(self, image: Image.Image) -> tuple[int, ...]:
        """Return the ids of an image in a prompt, from its first control token to its last."""
        return (self.image_id,) * self._image_tokens(image)

    def encode_text(self, text: str) -> list[int]:
        """Encode text without control tokens; lone surrogates as their escapes."""
        return self._plain.encode(escape_surrogates(text), add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of sampled ids, without the end of the turn."""
        own = [token for token in ids if token != self.end_id]
        return str(
            self.tokenizer.decode(
                own, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def open_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Encode a conversation so far and open the assistant's turn."""
        return list(self.encode(messages).ids) + self._open_assistant()

    def after_reply(self, messages: Sequence[Message]) -> list[int]:
        """Encode the text after a sampled ``<|im_end|>``: new messages, and the next turn."""
        ids = list(self._line_end)
        for message in messages:
            ids += self._message(message)
        return ids + self._open_assistant()

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """Encode a whole conversation, with the mask of the assistant's ids."""
        ids: list[int] = []
        completion_mask: list[bool] = []
        for message in messages:
            if message.role == "assistant":
                own = [*self.encode_text(message.text), self.end_id]
                pieces = [(self._open_assistant(), False), (own, True), (self._line_end, False)]
            else:
                pieces = [(self._message(message), False)]
            for piece, own_piece in pieces:
                ids += piece
                completion_mask += [own_piece] * len(piece)
        images = tuple(image for message in messages for image in message.images)
        return Encoded(tuple(ids), tuple(completion_mask), images)

    def _open_assistant(self) -> list[int]:
        return [self._start, *self.encode_text("assistant\n")]

    def _message(self, message: Message) -> list[int]:
        """Encode a message that is not the assistant's; adjacent texts are joined."""
        ids = [self._start]
        text = f"{message.role}\n"
        for part in message.parts:
            if isinstance(part, str):
                text += part
                continue
            ids += self.encode_text(text)
            text = ""
            ids += [self._vision_start, *self.image_ids(part), self._vision_end]
        return [*ids, *self.encode_text(text), self.end_id, *self._line_end]

    def _control(self, token: str) -> int:
        index = self._plain.token_to_id(token)
        if index is None:
            raise ValueError(f"the tokenizer has no {token}, which this model family needs")
        return index

    def _find_controls(self) -> frozenset[int]:
        named = (self._plain.token_to_id(token) for token in _OTHER_CONTROLS)
        ids = {index for index in named if index is not None} | set(self.tokenizer.all_special_ids)
        vision = {self._vision_start, self._vision_end, self.image_id}
        return frozenset(ids | vision | {self._start, self.end_id})

    def _check_plain_text(self) -> None:
        for index in sorted(self.control_ids):
            token = self._plain.id_to_token(index)
            if token and self.control_ids & set(self.encode_text(f"a{token}b")):
                raise ValueError(
                    f"the tokenizer writes the text {token} as a control token; mark it as "
                    "special in tokenizer.json so that printed text cannot forge it"
                )
