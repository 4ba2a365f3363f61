"""Messages of the chat completion API to ours: what other trainers keep and send."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...envs.picture import load_picture
from ...envs.types import Message

if TYPE_CHECKING:
    from PIL import Image


def read_image(url: str) -> Image.Image:
    """Return the image of a data URL.

    Raises:
        ValueError: The URL is another, or its data are not an image.
    """
    head, _, data = url.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64")):
        raise ValueError(f"expected a data URL (data:image/png;base64,…), got {url[:40]!r}")
    return load_picture(base64.b64decode(data, validate=True))


def read_message(
    wire: Mapping[str, Any], image_of: Callable[[str], Image.Image] = read_image
) -> Message:
    """Return a message of the chat completion API, with its images.

    Args:
        wire: Message with a text, or a list of text and image parts, as its content.
        image_of: Function that returns the image of a URL.
    """
    content = wire["content"]
    if isinstance(content, str):
        return Message(wire["role"], (content,))
    parts = [
        part["text"] if part["type"] == "text" else image_of(part["image_url"]["url"])
        for part in content
    ]
    return Message(wire["role"], tuple(parts))
