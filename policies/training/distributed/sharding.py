"""Weights, gradients and optimiser state sharded over the processes (FSDP, arXiv 2304.11277).

torch's `fully_shard` holds a part of each weight in every process and gathers a layer just before
it is used. Saved states are unsharded, so that a run can be resumed with any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...models.token_model import Padded, TokenModel
from .processes import whole


class Scorer(nn.Module):
    """Module that computes the log-probabilities of a model's tokens; it is what gets sharded.

    Args:
        model: Model to score with; its network is sharded in place, layer by layer of the text
            model.
    """

    def __init__(self, model: TokenModel) -> None:
        from torch.distributed.fsdp import fully_shard

        super().__init__()
        self.network: nn.Module = model.model
        self._model = model
        for layer in _text_layers(model.model):
            fully_shard(layer)
        # Where nothing is trained no backward pass would free what is gathered for the whole model.
        is_trained = any(one.requires_grad for one in self.parameters())
        fully_shard(self, reshard_after_forward=None if is_trained else True)

    def forward(
        self,
        batch: Padded,
        chosen: Tensor,
        *,
        mask: Tensor | None = None,
        temperature: float | None = None,
    ) -> Tensor:
        """Return the log-probabilities of the chosen tokens; see `TokenModel.log_probabilities`."""
        scores = self._model.log_probabilities(batch, chosen, mask=mask, temperature=temperature)
        if batch.order:
            return scores
        # All processes need gradients for the same weights, with or without images.
        named = self.network.named_parameters()
        seeing = [p for n, p in named if p.requires_grad and _is_of_pictures(n)]
        return scores + sum((p.sum() * 0.0 for p in seeing), torch.zeros((), device=scores.device))


def whole_values(value: Any) -> Any:  # noqa: ANN401 - any nesting of plain values and tensors
    """Gather every sharded tensor in nested dicts and lists; all processes have to call this.

    The first process gets them in main memory, one by one; the others get empty tensors in their
    place, so that nowhere all of them are on a GPU.
    """
    if isinstance(value, Tensor):
        gathered = whole(value)
        if gathered is value:
            return value
        return gathered.cpu() if dist.get_rank() == 0 else gathered.new_empty(0)
    if isinstance(value, Mapping):
        return {name: whole_values(one) for name, one in value.items()}
    if isinstance(value, list):
        return [whole_values(one) for one in value]
    return value


def copy_whole(network: nn.Module, copy: nn.Module | None, *, trained_only: bool) -> None:
    """Copy sharded weights, gathered one by one, into a whole network of the same names.

    Args:
        network: Network with sharded weights; all processes have to call this with it.
        copy: Whole network; None in a process that has none.
        trained_only: Whether the weights that are not trained are equal already.
    """
    own = {} if copy is None else dict(copy.named_parameters())
    with torch.no_grad():
        for name, one in network.named_parameters():
            if trained_only and not one.requires_grad:
                continue
            gathered = whole(one.detach())
            if copy is not None:
                own[name].copy_(gathered)


def like(given: Tensor, pattern: Tensor) -> Tensor:
    """Shard a whole tensor like ``pattern``; it is returned as it is where that is not sharded."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(pattern, DTensor) or given.shape != pattern.shape:
        return given
    return distribute_tensor(given, pattern.device_mesh, pattern.placements)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load whole weights by name, sharded like the network's own."""
    own: dict[str, Tensor] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad():
        for name, value in weights.items():
            if name in own:  # tied weights are saved under both names and registered under one
                own[name].copy_(like(value.to(own[name].device), own[name]))


def _text_layers(network: Any) -> list[nn.Module]:  # noqa: ANN401 - any transformers model
    inner = network.model
    text = getattr(inner, "language_model", None) or inner.text_model
    return list(text.layers)


def _is_of_pictures(name: str) -> bool:
    parts = ("visual", "vision", "connector", "multi_modal_projector", "image_newline")
    return any(part in name for part in parts)
