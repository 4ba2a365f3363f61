"""A vision-language model as a function of exact token ids: hidden states, logits and scores.

Training and generation both go through `TokenModel.hidden`, so that they cannot differ in how
images, positions or padding are treated. Sequences are padded on the right: with causal attention
no mask is needed then, and the fastest kernels apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .pictures import Patches
from .positions import mrope_positions
from .prompt_encoder import PromptEncoder, qwen_encoder
from .vision_tower import patch_vision_attention

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class PicturedIds:
    """Token ids and the images that their image tokens stand for, in order."""

    ids: Sequence[int]
    images: Sequence[Image.Image]


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """Sequences of one batch as tensors, padded on the right.

    Attributes:
        ids: Token ids, ``(batch, length)``.
        positions: Positions on three axes, ``(3, batch, length)``.
        lengths: Lengths without padding, ``(batch,)``.
        pictures: Distinct images.
        order: Index into ``pictures`` for each image slot of the batch, row by row.
    """

    ids: Tensor
    positions: Tensor
    lengths: Tensor
    pictures: tuple[Patches, ...]
    order: tuple[int, ...]


def sampling_logits(logits: Tensor, allowed: Tensor, temperature: float) -> Tensor:
    """Return the logits of the distribution that tokens are sampled from, in place of the model's.

    Args:
        logits: Logits of the model, ``(…, vocabulary)``, which are overwritten.
        allowed: Mask of ids that can be sampled, ``(vocabulary,)``.
        temperature: Temperature of sampling; 0.0, which takes the most likely token, leaves the
            distribution at temperature 1.
    """
    logits = logits.masked_fill_(~allowed, -torch.inf)
    return logits if temperature in (0.0, 1.0) else logits.div_(temperature)


class TokenModel:
    """A Hugging Face Qwen-VL model with its tokenizer and image cache.

    Args:
        model: Model of class ``…ForConditionalGeneration`` of the Qwen2-VL line.
        tokenizer: Fast tokenizer of the model.
        image_processor: Image processor of the model.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:  # noqa: ANN401 - untyped library objects
        self.model = model
        self._adopt(qwen_encoder(model.config, tokenizer, image_processor))
        patch_vision_attention(model)

    def _adopt(self, encoder: PromptEncoder) -> None:
        self.encoder = encoder
        self.chat, self.pictures = encoder.chat, encoder.pictures
        self.vocabulary = encoder.vocabulary

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def takes_masks(self) -> bool:
        """Whether attention supports a mask per token; flash kernels do not."""
        text = self.model.config.get_text_config()
        return "flash" not in (text._attn_implementation or "")

    def allowed(self) -> Tensor:
        """Return the mask of ids to sample from, ``(vocabulary,)``; see `PromptEncoder`."""
        allowed = torch.ones(self.vocabulary, dtype=torch.bool)
        allowed[list(self.encoder.forbidden_ids)] = False
        return allowed.to(self.device)

    def pad(
        self, sequences: Sequence[PicturedIds], *, starts: Sequence[int] | None = None
    ) -> Padded:
        """Pad sequences into a batch; an image that occurs twice is stored once.

        Args:
            sequences: Whole sequences, from their first token.
            starts: First token of each to include, those before being in a cache; None for 0.
        """
        starts = starts or [0] * len(sequences)
        lengths = [len(s.ids) - start for s, start in zip(sequences, starts, strict=True)]
        ids = np.full((len(sequences), max(lengths)), self.chat.end_id, dtype=np.int64)
        positions = np.zeros((3, len(sequences), max(lengths)), dtype=np.int64)
        slots: dict[bytes, int] = {}
        pictures: list[Patches] = []
        order: list[int] = []
        for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
            own = [self.pictures.patches(image) for image in sequence.images]
            ids[row, : lengths[row]] = sequence.ids[start:]
            positions[:, row, : lengths[row]] = self._positions(sequence.ids, own)[:, start:]
            for picture in own[self._pictures_before(sequence.ids[:start], own) :]:
                if picture.digest not in slots:
                    slots[picture.digest] = len(pictures)
                    pictures.append(picture)
                order.append(slots[picture.digest])
        return Padded(
            torch.from_numpy(ids),
            torch.from_numpy(positions),
            torch.tensor(lengths),
            tuple(pictures),
            tuple(order),
        )

    def pack(self, sequences: Sequence[PicturedIds]) -> tuple[Padded, Tensor]:
        """Pack sequences end to end in one row, without padding.

        Returns:
            The row, and the attention mask that separates its sequences, ``(1, length, length)``.

        Raises:
            ValueError: The model's attention does not take such masks.
        """
        attention = self.model.config.get_text_config()._attn_implementation
        if attention != "sdpa":
            raise ValueError(f"sft.packing needs sdpa attention, got {attention}: set it to false")
        laid = self.pad(sequences)
        is_token = torch.arange(laid.ids.shape[1])[None] < laid.lengths[:, None]
        owner = torch.arange(len(sequences)).repeat_interleave(laid.lengths)
        is_seen = torch.tril(owner[:, None] == owner[None])
        row = Padded(
            laid.ids[is_token][None],
            laid.positions[:, is_token][:, None],
            torch.tensor([len(owner)]),
            laid.pictures,
            laid.order,
        )
        return row, is_seen[None].to(self.device)

    def hidden(
        self,
        batch: Padded,
        *,
        cache: Any = None,  # noqa: ANN401 - a transformers Cache
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden states of all tokens, ``(batch, length, width)``.

        Args:
            batch: Sequences.
            cache: Cache of earlier keys and values, to which the new ones are added.
            mask: Attention mask of each token, ``(batch, length, columns of the cache)``; None for
                causal attention.
        """
        device = self.device
        return self.model.model(
            input_ids=batch.ids.to(device),
            position_ids=batch.positions.to(device),
            mm_encoder_outputs={"image": self._features(batch)} if batch.order else None,
            attention_mask=None if mask is None else mask[:, None],
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def step(self, ids: Tensor, positions: Tensor, is_seen: Tensor, *, cache: Any) -> Tensor:  # noqa: ANN401 - a transformers Cache
        """Decode one token per row; return the logits of the next, ``(rows, vocabulary)``.

        Args:
            ids: Token ids, ``(rows,)``.
            positions: Positions, ``(rows,)``; text has the same position on all three axes.
            is_seen: Attention mask over the columns of the cache, ``(rows, columns)``.
            cache: Keys and values so far.
        """
        states = self.model.model(
            input_ids=ids[:, None],
            position_ids=positions[None, :, None].expand(3, -1, 1),
            attention_mask=is_seen[:, None, None] if self.takes_masks else is_seen,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return self.logits(states[:, 0])

    def logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits of hidden states, ``(…, vocabulary)``."""
        return self.model.lm_head(hidden).float()

    def log_probabilities(
        self,
        batch: Padded,
        chosen: Tensor,
        *,
        mask: Tensor | None = None,
        temperature: float | None = None,
    ) -> Tensor:
        """Return the log-probability of each chosen token given all before it.

        Args:
            batch: Sequences.
            chosen: Mask of the tokens to score, ``(batch, length)`` bool; the first column is
                ignored.
            mask: Attention mask of each token, as in `hidden`.
            temperature: Temperature of sampling, to score under the distribution that tokens are
                sampled from (`sampling_logits`); None for the model's own distribution.

        Returns:
            One value per chosen token, row by row, ``(chosen.sum(),)``, float32; -inf for an id
            that is never sampled.
        """
        chosen = chosen.to(self.device)
        states = self.hidden(batch, mask=mask)[:, :-1][chosen[:, 1:]]
        targets = batch.ids.to(self.device)[:, 1:][chosen[:, 1:]]
        logits = self.logits(states)
        if temperature is not None:
            logits = sampling_logits(logits, self.allowed(), temperature)
        return -torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    def _positions(self, ids: Sequence[int], own: Sequence[Patches]) -> NDArray[np.int64]:
        """Return the positions of a sequence's tokens, ``(3, length)``."""
        return mrope_positions(
            ids, [self._merged(picture) for picture in own], image_id=self.chat.image_id
        )

    def _merged(self, picture: Patches) -> tuple[int, int]:
        merge = self.pictures.merge
        return picture.grid[0] // merge, picture.grid[1] // merge

    def _tokens_of(self, picture: Patches) -> int:
        rows, columns = self._merged(picture)
        return rows * columns

    def _pictures_before(self, ids: Sequence[int], own: Sequence[Patches]) -> int:
        """Return the number of images whose image tokens are among ``ids``."""
        left = sum(token == self.chat.image_id for token in ids)
        count = 0
        while left > 0:
            left -= self._tokens_of(own[count])
            count += 1
        return count

    def _features(self, batch: Padded) -> Any:  # noqa: ANN401 - a transformers output class
        """Run the vision tower over each distinct image and order its output by image slot."""
        values = self.pictures.pixel_values(batch.pictures).to(self.device)
        grids = torch.tensor([[1, *p.grid] for p in batch.pictures], device=self.device)
        out = self.model.model.get_image_features(values, grids, return_dict=True)
        out.pooler_output = tuple(out.pooler_output[i] for i in batch.order)
        deep = getattr(out, "deepstack_features", None)
        if deep is not None:
            out.deepstack_features = [tuple(layer[i] for i in batch.order) for layer in deep]
        return out
