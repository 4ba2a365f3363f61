"""Text and image side of a model: what the exact ids of a prompt depend on, without the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .chat_tokens import ChatTokenizer
from .crops import CROP_FAMILIES, CropCache
from .pictures import PictureCache
from .template_chat import PictureWords, TemplateTokenizer

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class PromptEncoder:
    """Chat encoding and image preprocessing of a model.

    Attributes:
        chat: Chat encoding.
        pictures: Image preprocessing.
        vocabulary: Number of ids that the model computes logits for.
    """

    chat: ChatTokenizer
    pictures: PictureCache
    vocabulary: int

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """Ids excluded from sampling: ids without a token, and controls but the end of a turn."""
        unused = range(len(self.chat.tokenizer), self.vocabulary)
        return tuple(sorted({*self.chat.forbidden_ids, *unused}))

    def collapse(self, ids: Sequence[int], images: Sequence[Image.Image]) -> list[int]:
        """Replace the ids of each image by one placeholder, as engines that expand them expect.

        Args:
            ids: Ids of a prompt.
            images: Its images, in order.

        Raises:
            ValueError: ``ids`` do not hold exactly these images.
        """
        found = list(ids)
        short: list[int] = []
        cursor = 0
        for number, image in enumerate(images, 1):
            own = list(self.chat.image_ids(image))
            try:
                start = found.index(own[0], cursor)
            except ValueError:
                start = len(found)
            if found[start : start + len(own)] != own:
                raise ValueError(f"the ids do not hold image {number} of {len(images)}")
            short += [*found[cursor:start], self.chat.placeholder_id]
            cursor = start + len(own)
        if self.chat.image_id in found[cursor:]:
            raise ValueError(f"the ids hold more than {len(images)} images")
        return short + found[cursor:]


def qwen_encoder(config: Any, tokenizer: Any, image_processor: Any) -> PromptEncoder:  # noqa: ANN401 - untyped library objects
    """Return the encoder of a model of the Qwen2-VL line."""
    pictures = PictureCache(image_processor)
    chat = ChatTokenizer(tokenizer, pictures.token_count)
    return PromptEncoder(chat, pictures, _vocabulary(config))


def crop_encoder(
    config: Any,  # noqa: ANN401 - untyped library objects
    tokenizer: Any,  # noqa: ANN401
    image_processor: Any,  # noqa: ANN401
    *,
    template: str,
) -> PromptEncoder:
    """Return the encoder of a model of one of `CROP_FAMILIES`.

    Raises:
        ValueError: The parts belong to different models, or the template is not supported.
    """
    family = CROP_FAMILIES[config.model_type]
    image_token = _image_token(config, tokenizer, family.needs)
    crops = CropCache(image_processor, config, family, image_token=image_token)
    words = PictureWords(family.placeholder, image_token, crops.text)
    chat = TemplateTokenizer(tokenizer, template=template, words=words)
    return PromptEncoder(chat, crops, _vocabulary(config))


def _vocabulary(config: Any) -> int:  # noqa: ANN401 - a transformers configuration
    return int(config.get_text_config().vocab_size)


def _image_token(config: Any, tokenizer: Any, needs: Sequence[str]) -> str:  # noqa: ANN401 - untyped library objects
    """Return the name of the image token, after checking the family's control tokens."""
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    missing = [token for token in needs if token not in vocabulary]
    if missing:
        raise ValueError(f"the tokenizer has no {missing[0]}, which this model family needs")
    if vocabulary[needs[0]] != config.image_token_id:
        raise ValueError(
            f"the tokenizer's {needs[0]} is {vocabulary[needs[0]]}, the model's image token "
            f"{config.image_token_id}: they belong to different models"
        )
    return needs[0]
