"""Models with one-dimensional positions whose images are split into crops.

Idefics 3 and SmolVLM, InternVL, LLaVA-OneVision, Gemma 3. Gemma's layers attend over a sliding
window or over everything, and the tokens of one image attend to each other in both directions;
these masks are built here, for whole sequences, for continuations of cached turns, and for single
decoding steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .crops import CROP_FAMILIES, Crops
from .pictures import Patches
from .prompt_encoder import crop_encoder
from .token_model import Padded, TokenModel

_FULL, _SLIDING = "full_attention", "sliding_attention"


class CropTokenModel(TokenModel):
    """A Hugging Face model of one of `CROP_FAMILIES` with its tokenizer and image cache.

    Args:
        model: Model of class ``…ForConditionalGeneration``.
        tokenizer: Fast tokenizer of the model.
        image_processor: Image processor of the model.
        template: Chat template of the model.

    Raises:
        ValueError: The parts belong to different models, or the text model has an unsupported
            kind of attention.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - untyped library objects
        tokenizer: Any,  # noqa: ANN401
        image_processor: Any,  # noqa: ANN401
        *,
        template: str,
    ) -> None:
        self.model = model
        self._family = CROP_FAMILIES[model.config.model_type]
        self._adopt(crop_encoder(model.config, tokenizer, image_processor, template=template))
        self._window = _window(model.config.get_text_config(), model.config.model_type)
        self._check_picture()

    def hidden(
        self,
        batch: Padded,
        *,
        cache: Any = None,  # noqa: ANN401 - a transformers Cache
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden states of all tokens; see `TokenModel.hidden`."""
        device = self.device
        ids, positions = batch.ids.to(device), batch.positions[0].to(device)
        return self.model.model(
            input_ids=ids,
            position_ids=positions,
            mm_encoder_outputs={"image": self._features(batch)} if batch.order else None,
            attention_mask=self._masks(ids, positions, mask),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def step(self, ids: Tensor, positions: Tensor, is_seen: Tensor, *, cache: Any) -> Tensor:  # noqa: ANN401 - a transformers Cache
        """Decode one token per row; see `TokenModel.step`."""
        mask: Any = is_seen[:, None, None] if self.takes_masks else is_seen
        if self._window is not None:
            columns = torch.arange(is_seen.shape[1], device=is_seen.device)
            is_near = columns > positions[:, None] - self._window
            mask = {_FULL: mask, _SLIDING: mask & is_near[:, None, None]}
        states = self.model.model(
            input_ids=ids[:, None],
            position_ids=positions[:, None],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return self.logits(states[:, 0])

    def _masks(
        self, ids: Tensor, positions: Tensor, seen: Tensor | None
    ) -> Mapping[str, Tensor] | Tensor | None:
        """Return the attention masks of each token, in the form that the model takes.

        Args:
            ids: New tokens, ``(batch, length)``.
            positions: Positions of the new tokens, ``(batch, length)``.
            seen: Attention mask by the order of tokens alone, ``(batch, length, columns)``, the
                last columns being the new tokens; None for causal attention.
        """
        if self._window is None:
            return None if seen is None else seen[:, None]
        length = ids.shape[1]
        if seen is None:
            every = torch.ones(length, length, dtype=torch.bool, device=ids.device)
            seen = every.tril().expand(len(ids), -1, -1)
        past = seen.shape[2] - length
        is_image = ids == self.chat.image_id
        starts = is_image & ~torch.nn.functional.pad(is_image, (1, 0))[:, :-1]
        block = torch.where(is_image, starts.cumsum(1), -torch.arange(1, length + 1).to(ids))
        together = torch.nn.functional.pad(block[:, :, None] == block[:, None], (past, 0))
        before = torch.arange(past, device=ids.device).expand(len(ids), -1)
        columns = torch.cat([before, positions], dim=1)
        is_near = columns[:, None] > positions[:, :, None] - self._window
        full = seen | together
        return {_FULL: full[:, None], _SLIDING: (full & is_near)[:, None]}

    def _positions(self, ids: Sequence[int], own: Sequence[Patches]) -> NDArray[np.int64]:
        have = sum(token == self.chat.image_id for token in ids)
        want = sum(map(self._tokens_of, own))
        if have != want:
            raise ValueError(f"{have} image tokens, but the {len(own)} pictures take {want}")
        return np.broadcast_to(np.arange(len(ids)), (3, len(ids)))

    def _features(self, batch: Padded) -> Any:  # noqa: ANN401 - a transformers output class
        """Run the vision tower over each distinct image and order its output by image slot."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        known = [self._features_of(picture) for picture in batch.pictures]
        laid: Any = tuple(known[index] for index in batch.order)
        return BaseModelOutputWithPooling(
            pooler_output=torch.cat(laid) if self._family.is_stacked else laid
        )

    def _features_of(self, picture: Patches) -> Tensor:
        """Return an image's features as input of the text model, ``(tokens, width)``."""
        if not isinstance(picture, Crops):
            raise TypeError(f"expected crops, got {type(picture).__name__}")
        inputs = {
            name: torch.from_numpy(values).to(self.device)
            for name, values in picture.inputs.items()
        }
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        found: Any = self.model.model.get_image_features(**inputs, return_dict=True).pooler_output
        if isinstance(found, (list, tuple)):
            found = torch.cat(found)
        return found.reshape(-1, found.shape[-1])

    def _tokens_of(self, picture: Patches) -> int:
        return picture.grid[1]

    def _check_picture(self) -> None:
        """Reject a model whose number of features per image differs from its prompt's tokens."""
        from PIL import Image

        picture = self.pictures.patches(Image.new("RGB", (64, 48), "grey"))
        with torch.inference_mode():
            pieces = len(self._features_of(picture))
        if pieces != self._tokens_of(picture):
            raise ValueError(
                f"the model makes {pieces} features of an image that has "
                f"{self._tokens_of(picture)} tokens in a prompt: the image processor is another "
                "model's"
            )


def _window(text: Any, family: str) -> int | None:  # noqa: ANN401 - a transformers configuration
    """Return the window of sliding layers; None where every layer has full attention."""
    kinds = set(getattr(text, "layer_types", None) or [_FULL])
    if family == "gemma3":
        return int(text.sliding_window)
    if kinds != {_FULL} or getattr(text, "sliding_window", None):
        shown = ", ".join(sorted(kinds))
        raise ValueError(
            f"its text model ({text.model_type}) has layers that do not see everything before "
            f"them ({shown}): cached turns and exact log-probabilities are not "
            "supported for them"
        )
    return None
