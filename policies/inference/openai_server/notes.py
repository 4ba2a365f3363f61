"""Notes of a model folder whose weights are behind a server: setting, image size, prompt length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....envs.types import Message
from ...models.model_folder import load_prompt_encoder, read_notes
from ...models.trained_setting import TrainedSetting
from ..vllm.image_urls import ImageUrls

if TYPE_CHECKING:
    from PIL import Image


class ServedNotes(TrainedSetting):
    """What a client has to know of the model that a server has.

    Args:
        source: Model folder or hub id; the weights are not read.

    Raises:
        ModelFolderError: A part other than the weights is missing, or the hub id could not be
            loaded.
    """

    def __init__(self, source: str) -> None:
        super().__init__(source, read_notes(source))
        self._encoder = load_prompt_encoder(source)
        self._image_urls = ImageUrls(self._encoder.pictures)

    def image_url(self, image: Image.Image) -> str:
        """Return the data URL of an image at the model's own size."""
        return self._image_urls.url(image)

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Return the length of a prompt in tokens, as our own engine would encode it."""
        return len(self._encoder.chat.open_prompt(messages))
