"""The model of a step's replies: it generates them, or is handed over to servers.

Sharded weights can do neither. Where our own engine generates, each process has a whole copy of
them, which is in main memory while the weights are updated. Where servers generate, only the first
process has one, in main memory: it is written from there, and compared with the servers.
"""

from __future__ import annotations

import gc

import torch

from ..trained_model import TrainedModel


class Actor:
    """Keeps the acting model equal to the trained one.

    Args:
        trained: Trained model.
        is_served: Whether servers generate the replies.
    """

    def __init__(self, trained: TrainedModel, *, is_served: bool) -> None:
        self._trained = trained
        self._is_served = is_served
        needs_copy = trained.is_sharded and (not is_served or trained.world.is_first)
        self._copy = trained.whole_copy() if needs_copy else None

    @property
    def model(self) -> TrainedModel:
        """Acting model; the trained one where that is whole, or where this process has no copy."""
        return self._trained if self._copy is None else self._copy

    def begin_replies(self) -> None:
        """Take over the trained weights; where they are sharded, all processes call this."""
        if not self._trained.is_sharded:
            return
        if self._copy is not None and not self._is_served:
            self._copy.model.model.to(self._trained.model.device)
        self._trained.copy_to(self._copy)

    def end_replies(self) -> None:
        """Make room for the update."""
        if self._copy is not None and not self._is_served:
            self._copy.model.model.to("cpu")
            empty_gpu_cache()


def empty_gpu_cache() -> None:
    """Return the memory that torch keeps for later tensors to the GPU, where one is in use."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
