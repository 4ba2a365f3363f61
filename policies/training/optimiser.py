"""The optimiser of both trainers: AdamW or Muon, a stateless learning-rate schedule, clipping.

Muon (Jordan et al. 2024; torch.optim.Muon) orthogonalises the updates of hidden matrices; scaled
to AdamW's size (arXiv 2502.16982) it takes its own learning rate. With it a small model from random
weights learns to copy a printed number in a third of the steps. All other weights use AdamW.

Weights in half precision have a float32 copy that takes the updates, and their gradients are summed
up in float32 over the micro-batches of a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .distributed.processes import World, whole
from .distributed.sharding import like, whole_values


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning-rate schedule; stateless, so a resumed run restores nothing.

    Attributes:
        learning_rate: Peak learning rate.
        steps: Length of the run, in steps.
        warmup_steps: Steps of the linear rise from 0.
        kind: ``cosine`` falls to ``floor`` times the peak at the end; ``constant`` stays there.
        floor: Final learning rate of ``cosine``, as a share of the peak.
    """

    learning_rate: float
    steps: int
    warmup_steps: int = 0
    kind: Literal["cosine", "constant"] = "cosine"
    floor: float = 0.0

    def at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.learning_rate
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        share = self.floor + (1.0 - self.floor) * (1.0 + math.cos(math.pi * min(done, 1.0))) / 2.0
        return self.learning_rate * share


class Optimiser:
    """AdamW, or AdamW and Muon, over a module's trainable weights; no decay on norms and biases.

    Args:
        module: Module to train.
        schedule: Learning-rate schedule.
        weight_decay: Weight decay of matrices.
        max_grad_norm: Norm that gradients are clipped to.
        muon_factor: Learning rate of Muon on hidden matrices, as a multiple of the schedule's; 0.0
            for AdamW alone.
    """

    def __init__(
        self,
        module: nn.Module,
        schedule: Schedule,
        *,
        weight_decay: float,
        max_grad_norm: float,
        muon_factor: float = 0.0,
    ) -> None:
        self.schedule = schedule
        self._max_grad_norm = max_grad_norm
        self._muon_factor = muon_factor
        held = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self._copies = [(p, _exact_copy(p)) for _, p in held if p.dtype != torch.float32]
        copy_of = {id(p): copy for p, copy in self._copies}
        named = [(name, copy_of.get(id(p), p)) for name, p in held]
        self._weights = [p for _, p in named]
        hidden = [p for name, p in named if muon_factor and _is_hidden_matrix(name, p)]
        known = {id(p) for p in hidden}
        others = [p for p in self._weights if id(p) not in known]
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW(groups, lr=schedule.at(0), betas=(0.9, 0.999), fused=True)
        self._muon = (
            torch.optim.Muon(hidden, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            if hidden
            else None
        )

    def step(self, step: int, *, world: World | None = None) -> dict[str, float]:
        """Apply the gradients of a step and clear them; return ``grad_norm`` and ``lr``.

        Args:
            step: Step index, from 0.
            world: Processes whose gradients are summed first; None for this one alone, or where
                sharded weights have summed them already.

        Raises:
            FloatingPointError: The gradients are not finite; the weights are as before.
        """
        rate = self.schedule.at(step)
        for group in self._adam.param_groups:
            group["lr"] = rate
        for group in self._muon.param_groups if self._muon else ():
            group["lr"] = rate * self._muon_factor
        if world is not None:
            world.add_gradients(self._weights)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self._weights, self._max_grad_norm)))
        if not math.isfinite(norm):
            self._clear()
            raise FloatingPointError(
                f"the gradients of step {step + 1} are not finite; lower learning_rate"
            )
        self._adam.step()
        if self._muon is not None:
            self._muon.step()
        self._clear()
        with torch.no_grad():
            for weight, copy in self._copies:
                weight.copy_(copy)
        return {"grad_norm": norm, "lr": rate}

    def state(self) -> dict[str, Any]:
        """Return the full state for a resumed run; with sharded weights, all processes call it."""
        muon = None if self._muon is None else self._muon.state_dict()
        copies = [copy.detach() for _, copy in self._copies]
        return whole_values({"adam": self._adam.state_dict(), "muon": muon, "copies": copies})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state of an earlier run."""
        adam = dict(state["adam"])
        weights = [one for group in self._adam.param_groups for one in group["params"]]
        adam["state"] = {
            index: {name: like(value, weights[index]) for name, value in values.items()}
            for index, values in adam["state"].items()
        }
        self._adam.load_state_dict(adam)
        if self._muon is not None:
            self._muon.load_state_dict(state["muon"])
        with torch.no_grad():
            for (_, copy), saved in zip(self._copies, state["copies"], strict=True):
                copy.copy_(like(saved, copy))

    def _clear(self) -> None:
        for weight in self._weights:
            weight.grad = None


def _exact_copy(weight: nn.Parameter) -> nn.Parameter:
    """Return a float32 copy that accumulates the weight's gradient as soon as it is computed."""
    copy = nn.Parameter(weight.detach().float())

    def add_up(given: Tensor) -> None:
        if given.grad is not None:
            fresh = given.grad.float()
            copy.grad = fresh if copy.grad is None else copy.grad.add_(fresh)
            given.grad = None

    weight.register_post_accumulate_grad_hook(add_up)
    return copy


def _is_hidden_matrix(name: str, weight: nn.Parameter) -> bool:
    """Whether Muon applies: a matrix between two hidden layers, no embedding and no head."""
    return weight.ndim == 2 and "embed" not in name and "lm_head" not in name
