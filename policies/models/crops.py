"""Image preprocessing of model families that split images into crops of one size, by family.

Each image is processed independently: its crops, and the text that represents it in a prompt
(control tokens as text), so that the encoding of earlier turns does not change later.

Departures from the published processors: LLaVA-OneVision splits a single image into many crops and
reads each of several images as one crop. A tool can return a second image at any turn, so here
every image is read as one of several. Gemma 3's pan and scan is off, as it is by default.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .pictures import Patches, PictureCache

if TYPE_CHECKING:
    from PIL import Image

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Crops(Patches):
    """Vision-tower input of one image.

    Attributes:
        inputs: Arguments of the model's ``get_image_features``.
        text: Text that represents the image in a prompt.
    """

    inputs: Arrays
    text: str


@dataclass(frozen=True, slots=True)
class CropFamily:
    """Image preprocessing and prompt format of a model family.

    Attributes:
        placeholder: Placeholder of an image in the chat template.
        needs: Control tokens that its tokenizer must have, the image token first.
        read: Function that returns inputs and text of an image, from the processor, the
            configuration and the image.
        is_stacked: Whether the model takes all images' features as one tensor, not a list.
    """

    placeholder: str
    needs: tuple[str, ...]
    read: Callable[[Any, Any, Image.Image], tuple[Arrays, str]]
    is_stacked: bool = False


def _read_idefics(processor: Any, config: Any, image: Image.Image) -> tuple[Arrays, str]:  # noqa: ANN401 - untyped library objects
    out = processor(images=[[image]], return_row_col_info=True, return_tensors="np")
    side = config.vision_config.image_size // config.vision_config.patch_size
    piece = "<image>" * (side**2 // config.scale_factor**2)
    whole = f"<fake_token_around_image><global-img>{piece}<fake_token_around_image>"
    lines = [
        "".join(
            f"<fake_token_around_image><row_{row + 1}_col_{column + 1}>{piece}"
            for column in range(int(out["cols"][0][0]))
        )
        for row in range(int(out["rows"][0][0]))
    ]
    text = "".join(f"{line}\n" for line in lines) + ("\n" if lines else "") + whole
    return {name: out[name] for name in ("pixel_values", "pixel_attention_mask")}, text


def _read_internvl(processor: Any, config: Any, image: Image.Image) -> tuple[Arrays, str]:  # noqa: ANN401 - see above
    out = processor(images=[image], crop_to_patches=True, return_tensors="np")
    vision = config.vision_config
    cells = math.prod(
        size // patch for size, patch in zip(vision.image_size, vision.patch_size, strict=True)
    )
    crops = len(out["pixel_values"])
    count = crops * int(cells * config.downsample_ratio**2)
    return {"pixel_values": out["pixel_values"]}, f"<img>{'<IMG_CONTEXT>' * count}</img>"


def _read_onevision(processor: Any, config: Any, image: Image.Image) -> tuple[Arrays, str]:  # noqa: ANN401 - see above
    company = image.resize((8, 8))  # a second image, so that the first is read as one crop
    out = processor(images=[[image, company]], return_tensors="np")
    vision = config.vision_config
    is_whole = config.vision_feature_select_strategy == "full"
    count = (vision.image_size // vision.patch_size) ** 2 + (1 if is_whole else 0)
    inputs = {
        "pixel_values": np.asarray(out["pixel_values"])[:1],
        "image_sizes": np.asarray(out["image_sizes"])[:1],
        "batch_num_images": np.array([2]),
    }
    return inputs, "<image>" * count


def _read_gemma(processor: Any, config: Any, image: Image.Image) -> tuple[Arrays, str]:  # noqa: ANN401 - see above
    out = processor(images=[image], do_pan_and_scan=False, return_tensors="np")
    soft = "<image_soft_token>" * config.mm_tokens_per_image
    text = f"\n\n<start_of_image>{soft}<end_of_image>\n\n"
    return {"pixel_values": out["pixel_values"]}, text


_IDEFICS = CropFamily(
    "<image>", ("<image>", "<fake_token_around_image>", "<global-img>"), _read_idefics
)
CROP_FAMILIES: Mapping[str, CropFamily] = {
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "internvl": CropFamily(
        "<IMG_CONTEXT>", ("<IMG_CONTEXT>", "<img>", "</img>"), _read_internvl, is_stacked=True
    ),
    "llava_onevision": CropFamily("<image>", ("<image>",), _read_onevision),
    "gemma3": CropFamily(
        "<start_of_image>",
        ("<image_soft_token>", "<start_of_image>", "<end_of_image>"),
        _read_gemma,
        is_stacked=True,
    ),
}
"""Families by ``model_type``."""


class CropCache(PictureCache):
    """LRU cache of image crops: each distinct image is processed once while it is cached.

    Args:
        processor: Image processor of the family.
        config: Configuration of the model.
        family: Preprocessing and prompt format.
        image_token: Control token that stands for one image feature.
        max_bytes: Cache size, in bytes; the least recently used entry is evicted first.
    """

    def __init__(
        self,
        processor: Any,  # noqa: ANN401 - untyped library class
        config: Any,  # noqa: ANN401
        family: CropFamily,
        *,
        image_token: str,
        max_bytes: int = 512 * 2**20,
    ) -> None:
        self.processor = processor
        self.merge = 1
        self._config = config
        self._family = family
        self._image_token = image_token
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[bytes, Patches] = OrderedDict()
        self._lock = Lock()

    def crops(self, image: Image.Image) -> Crops:
        """Return an image's crops, from the cache where possible."""
        found = self.patches(image)
        if not isinstance(found, Crops):
            raise TypeError(f"expected crops, got {type(found).__name__}")
        return found

    def at_model_size(self, image: Image.Image) -> Image.Image:
        """Return the image in RGB; each engine splits it into crops itself."""
        return image.convert("RGB")

    def text(self, image: Image.Image) -> str:
        """Return the text that represents an image in a prompt."""
        return self.crops(image).text

    def _process(self, image: Image.Image, digest: bytes) -> Crops:
        inputs, text = self._family.read(self.processor, self._config, image.convert("RGB"))
        exact = {name: np.ascontiguousarray(values) for name, values in inputs.items()}
        count = text.count(self._image_token)
        return Crops(digest, (1, count), exact["pixel_values"], exact, text)
