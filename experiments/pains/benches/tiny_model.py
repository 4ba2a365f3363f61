"""The nano model and a processor for it, in any environment with transformers and pillow.

The shipped checkpoint has Qwen2.5-VL's architecture and a ChatML tokenizer, so that trainers see an
ordinary Qwen2.5-VL of 2 million parameters. It has no video processor, which needs torchvision.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

NANO = Path(__file__).parents[3] / "policies" / "checkpoints" / "nano"


class Processor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without videos."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **_):
        self.video_processor = None
        super().__init__(image_processor, tokenizer, None, chat_template)

    @classmethod
    def get_attributes(cls):
        """Return the parts of the processor."""
        return ["image_processor", "tokenizer"]


def load_processor(template: str | None = None, *, pixels: int | None = None):
    """Return the processor.

    Args:
        template: Chat template; None for the checkpoint's own.
        pixels: Pixels of each image; None for the checkpoint's own.
    """
    own = (NANO / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    tokenizer.chat_template = template or own
    size = {"size": {"shortest_edge": pixels, "longest_edge": pixels}} if pixels else {}
    images = Qwen2VLImageProcessorPil.from_pretrained(NANO, **size)
    return Processor(images, tokenizer, chat_template=tokenizer.chat_template)


def load_model():
    """Return the model, on the CPU."""
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(NANO)


def picture(shade: int = 128):
    """Return an image of one colour."""
    return Image.new("RGB", (96, 64), (shade, 40, 200))
