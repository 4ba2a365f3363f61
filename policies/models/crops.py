"""How model families that cut pictures into crops of one size read them, family by family.

Each picture is read by itself: its crops, and the text that stands for it in a prompt (control
tokens as text), so that what was read in one turn stays as it is whatever comes later.

What this departs from the published processors in: LLaVA-OneVision reads a lone picture in many
crops and pictures in company in one. A tool may return a second picture at any turn, so here every
picture is read as in company. Gemma 3's pan and scan is left off, as it is by default.
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
    """What the vision tower reads of one picture.

    Attributes:
        inputs: Arguments of the model's ``get_image_features``.
        text: What stands for the picture in a prompt.
    """

    inputs: Arrays
    text: str


@dataclass(frozen=True, slots=True)
class CropFamily:
    """How a family reads a picture and writes it into a prompt.

    Attributes:
        placeholder: What its chat template leaves where a picture goes.
        needs: Control tokens that its tokenizer must have, the image token first.
        read: Gives inputs and text of a picture from its processor, its configuration and the
            picture.
        is_stacked: Whether the model wants all pictures' features as one tensor, not a list.
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
    company = image.resize((8, 8))  # beside which the picture is read in one crop
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
"""By ``model_type``."""


class CropCache(PictureCache):
    """Provide the crops of pictures, each distinct picture processed once while it is remembered.

    Args:
        processor: The family's image processor.
        config: Of the model.
        family: How pictures are read.
        image_token: The control token that stands for a piece of picture.
        max_bytes: How much to remember; the longest unused goes first.
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
        """Return a picture's crops, from memory if it was seen lately."""
        found = self.patches(image)
        if not isinstance(found, Crops):
            raise TypeError(f"expected crops, got {type(found).__name__}")
        return found

    def text(self, image: Image.Image) -> str:
        """Return what stands for a picture in a prompt."""
        return self.crops(image).text

    def _process(self, image: Image.Image, digest: bytes) -> Crops:
        inputs, text = self._family.read(self.processor, self._config, image.convert("RGB"))
        exact = {name: np.ascontiguousarray(values) for name, values in inputs.items()}
        count = text.count(self._image_token)
        return Crops(digest, (1, count), exact["pixel_values"], exact, text)
