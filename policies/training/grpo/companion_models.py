"""Models beside the trained one: the one that replies, and the reference of the KL term.

Sharded weights can neither generate replies nor be handed over to servers. Where our own engine
generates, each process has a whole copy of them, which is in main memory while the weights are
updated. Where servers generate, only the first process has one, in main memory: it is written from
there, and compared with the servers.

The reference is the initial model, in the precision of the trained one. Where adapters are trained,
it is the trained model with its adapters switched off: no second model is in memory. Else it is a
copy of the initial weights, sharded where the trained weights are.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ...models.model_folder import load_token_model
from ...models.token_model import Padded
from ..distributed.sharding import Scorer
from ..trained_model import TrainedModel
from ..training_setup import TrainingSetup


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


class Reference(Protocol):
    """A policy that the trained one is kept near to."""

    def log_probabilities(
        self, batch: Padded, chosen: Tensor, *, temperature: float | None = None
    ) -> Tensor:
        """Return the log-probabilities of the chosen tokens; see `TokenModel.log_probabilities`.

        Where the trained weights are sharded, all processes have to call this.
        """
        ...


class InitialModel:
    """A copy of the initial weights.

    Args:
        source: Folder or hub id of the initial model.
        setup: Settings that the trained model was prepared with.
        is_sharded: Whether each process holds only a part of the weights.
    """

    def __init__(self, source: str | Path, setup: TrainingSetup, *, is_sharded: bool) -> None:
        self._model = load_token_model(source)
        network = self._model.model.requires_grad_(False)
        if setup.bf16:
            network.to(torch.bfloat16)
        self._scorer = Scorer(self._model) if is_sharded else None

    def log_probabilities(
        self, batch: Padded, chosen: Tensor, *, temperature: float | None = None
    ) -> Tensor:
        """Score the chosen tokens; see `Reference`."""
        scorer = self._model.log_probabilities if self._scorer is None else self._scorer
        return scorer(batch, chosen, temperature=temperature)


class AdaptersOff:
    """The trained model without its adapters.

    Args:
        trained: Model whose adapters are trained.
    """

    def __init__(self, trained: TrainedModel) -> None:
        self._trained = trained

    def log_probabilities(
        self, batch: Padded, chosen: Tensor, *, temperature: float | None = None
    ) -> Tensor:
        """Score the chosen tokens; see `Reference`."""
        with self._trained.without_adapters():
            return self._trained.score(batch, chosen, temperature=temperature)


def make_reference(trained: TrainedModel, source: str | Path, setup: TrainingSetup) -> Reference:
    """Return the reference of a trained model.

    Args:
        trained: Trained model, before its first update.
        source: Folder or hub id that it was loaded from.
        setup: Settings that it was prepared with.
    """
    if trained.has_adapters:
        return AdaptersOff(trained)
    return InitialModel(source, setup, is_sharded=trained.is_sharded)
