"""A vision-language model as a function of exact token ids: what it says of each, and what is next.

Everything that learns or generates goes through `TokenModel.hidden`, so that the two cannot differ
in how pictures, positions or padding are treated. Sequences are padded on the right: with causal
attention no mask is needed then, and the fastest kernels apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .chat_tokens import ChatTokenizer
from .pictures import Patches, PictureCache
from .positions import mrope_positions
from .vision_tower import patch_vision_attention

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class PicturedIds:
    """Token ids and the pictures that their image tokens stand for, in order."""

    ids: Sequence[int]
    images: Sequence[Image.Image]


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """Sequences of one batch as tensors, padded on the right.

    Attributes:
        ids: ``(batch, length)``.
        positions: ``(3, batch, length)``.
        lengths: ``(batch,)``.
        pictures: The distinct pictures.
        order: For each picture slot of the batch, row by row, which of ``pictures`` is there.
    """

    ids: Tensor
    positions: Tensor
    lengths: Tensor
    pictures: tuple[Patches, ...]
    order: tuple[int, ...]


class TokenModel:
    """A Hugging Face Qwen-VL model with its tokenizer and picture cache.

    Args:
        model: A ``…ForConditionalGeneration`` of the Qwen2-VL line.
        tokenizer: Its fast tokenizer.
        image_processor: Its image processor.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:  # noqa: ANN401 - untyped library objects
        self.model = model
        self.pictures = PictureCache(image_processor)
        self.chat = ChatTokenizer(tokenizer, self.pictures.token_count)
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        patch_vision_attention(model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def takes_masks(self) -> bool:
        """Whether attention can be told of each token what it may look at; flash kernels cannot."""
        text = self.model.config.get_text_config()
        return "flash" not in (text._attn_implementation or "")

    def allowed(self) -> Tensor:
        """Which ids may be sampled, ``(vocabulary,)``: no control token but the end of a turn."""
        allowed = torch.ones(self.vocabulary, dtype=torch.bool)
        allowed[len(self.chat.tokenizer) :] = False
        allowed[sorted(self.chat.forbidden_ids)] = False
        return allowed.to(self.device)

    def pad(
        self, sequences: Sequence[PicturedIds], *, starts: Sequence[int] | None = None
    ) -> Padded:
        """Lay sequences side by side; a picture that occurs twice is kept once.

        Args:
            sequences: Whole, from their first token.
            starts: Where each is to begin, what lies before being in a cache; None for 0.
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
        """Lay sequences end to end in one row, without padding.

        Returns:
            The row, and what each token may look at so that none of its sequences sees another,
            ``(1, length, length)``.

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
            batch: The sequences.
            cache: Takes keys and values, and holds those of what came before.
            mask: What each token may look at, ``(batch, length, columns of the cache)``; None for
                all before it.
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
        """Feed one token a row and give the logits of the next, ``(rows, vocabulary)``.

        Args:
            ids: ``(rows,)``.
            positions: ``(rows,)``; text moves on all three axes alike.
            is_seen: Which columns of the cache a row may look at, ``(rows, columns)``.
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
        self, batch: Padded, chosen: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return the log-probability of each chosen token given all before it.

        Args:
            batch: The sequences.
            chosen: Which tokens to score, ``(batch, length)`` bool; the first column is not.
            mask: What each token may look at, as in `hidden`.

        Returns:
            One value a chosen token, row by row, ``(chosen.sum(),)``, float32.
        """
        chosen = chosen.to(self.device)
        states = self.hidden(batch, mask=mask)[:, :-1][chosen[:, 1:]]
        targets = batch.ids.to(self.device)[:, 1:][chosen[:, 1:]]
        return -torch.nn.functional.cross_entropy(self.logits(states), targets, reduction="none")

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
        """Count the pictures whose image tokens are among ``ids``."""
        left = sum(token == self.chat.image_id for token in ids)
        count = 0
        while left > 0:
            left -= self._tokens_of(own[count])
            count += 1
        return count

    def _features(self, batch: Padded) -> Any:  # noqa: ANN401 - a transformers output class
        """Run the vision tower once a distinct picture and lay its output out slot by slot."""
        values = self.pictures.pixel_values(batch.pictures).to(self.device)
        grids = torch.tensor([[1, *p.grid] for p in batch.pictures], device=self.device)
        out = self.model.model.get_image_features(values, grids, return_dict=True)
        out.pooler_output = tuple(out.pooler_output[i] for i in batch.order)
        deep = getattr(out, "deepstack_features", None)
        if deep is not None:
            out.deepstack_features = [tuple(layer[i] for i in batch.order) for layer in deep]
        return out
