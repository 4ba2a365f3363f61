"""Images for tries of ours, which need no other environment."""

from PIL import Image


def picture(shade: int = 128) -> Image.Image:
    """Return an image of one colour."""
    return Image.new("RGB", (96, 64), (shade, 40, 200))
