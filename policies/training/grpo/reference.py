"""Reference policy of the KL term: the initial weights, in the precision of the trained ones.

Where adapters are trained, it is the trained model with its adapters switched off: no second model
is in memory. Else it is a copy of the initial weights, sharded where the trained weights are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ...models.model_folder import load_token_model
from ...models.token_model import Padded
from ..distributed.sharding import Scorer
from ..trained_model import TrainedModel
from ..training_setup import TrainingSetup


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
