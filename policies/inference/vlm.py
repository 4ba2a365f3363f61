"""A vision-language model as a policy: conversations in, replies out, every token id recorded."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ..interface import Conversation, Reply, Sampling
from ..models.model_folder import ModelNotes
from ..models.token_model import PicturedIds, TokenModel
from ..models.trained_setting import TrainedSetting
from .reply_stream import Kept, VisionLanguageStream

if TYPE_CHECKING:
    from PIL import Image


class VisionLanguagePolicy(TrainedSetting):
    """Samples replies from a `TokenModel`.

    Args:
        model: Model that computes the next token.
        policy_id: Name of model and weights.
        notes: Setting that it was trained in: system prompt, largest image, families.
        batch_size: Largest number of conversations per forward pass.
        keeps_cache: Whether keys and values of a turn are cached until the next call or stream,
            which then prefills only new tokens; costs memory.
    """

    def __init__(
        self,
        model: TokenModel,
        *,
        policy_id: str,
        notes: ModelNotes | None = None,
        batch_size: int = 128,
        keeps_cache: bool = True,
    ) -> None:
        super().__init__(policy_id, notes)
        self.model = model
        self._batch_size = batch_size
        self._keeps_cache = keeps_cache
        # By the identity of the record that the keys and values belong to.
        self._kept: dict[int, Kept] = {}

    @property
    def device_type(self) -> str:
        """Type of the model's device, such as ``cpu`` or ``cuda``."""
        return self.model.device.type

    def reply(self, conversations: Sequence[Conversation], *, sampling: Sampling) -> list[Reply]:
        """Generate the next turn of each conversation; append its ids to `Conversation.tokens`."""
        place = {id(one): index for index, one in enumerate(conversations)}
        replies: list[tuple[int, Reply]] = []
        left = list(conversations)
        slots = min(self._batch_size, max(len(left), 1))
        with self.stream(sampling=sampling, slots=slots) as stream:
            while left or stream.is_busy:
                joining = left[: stream.free]
                del left[: len(joining)]
                stream.join(joining)
                replies += [(place[id(one)], reply) for one, reply in stream.advance()]
        return [reply for _, reply in sorted(replies, key=lambda pair: pair[0])]

    @contextmanager
    def stream(self, *, sampling: Sampling, slots: int) -> Generator[VisionLanguageStream]:
        """Open a reply stream with ``slots`` slots; the model's train or eval mode is restored."""
        was_training = self.model.model.training
        self.model.model.eval()
        stream = VisionLanguageStream(self.model, sampling, slots=slots, kept=self._kept)
        self._kept = {}
        try:
            yield stream
            self._kept = stream.kept if self._keeps_cache else {}
        finally:
            self.model.model.train(was_training)

    def full_logprobs(
        self, ids: Sequence[int], images: Sequence[Image.Image], *, temperature: float = 1.0
    ) -> tuple[float, ...]:
        """Score ids in one forward pass, under the distribution that they would be sampled from.

        Returns:
            Log-probabilities, ``(length,)``; 0.0 for the first, -inf for ids that are never
            sampled, such as those of images.
        """
        with torch.inference_mode():
            batch = self.model.pad([PicturedIds(ids, images)])
            chosen = torch.ones_like(batch.ids, dtype=torch.bool)
            scores = self.model.log_probabilities(batch, chosen, temperature=temperature)
        return (0.0, *scores.tolist())
