"""The optimiser of both trainers: AdamW, a rate that is a function of the step, clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of each step; no state, so a resumed run needs none.

    Attributes:
        learning_rate: At its highest.
        steps: Length of the run.
        warmup_steps: Linear rise from 0 over these.
        kind: ``cosine`` falls to ``floor`` times the highest at the end; ``constant`` stays.
        floor: Share of the highest rate that cosine ends at.
    """

    learning_rate: float
    steps: int
    warmup_steps: int = 0
    kind: Literal["cosine", "constant"] = "cosine"
    floor: float = 0.0

    def at(self, step: int) -> float:
        """Give the rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.learning_rate
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        share = self.floor + (1.0 - self.floor) * (1.0 + math.cos(math.pi * min(done, 1.0))) / 2.0
        return self.learning_rate * share


class Optimiser:
    """AdamW over a module's trainable weights; decay is kept off norms and biases.

    Args:
        module: What is trained.
        schedule: The learning rate.
        weight_decay: Of matrices.
        max_grad_norm: Gradients are scaled down to this norm.
    """

    def __init__(
        self, module: nn.Module, schedule: Schedule, *, weight_decay: float, max_grad_norm: float
    ) -> None:
        self.schedule = schedule
        self._max_grad_norm = max_grad_norm
        self._weights = [p for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in self._weights if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in self._weights if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._adam = torch.optim.AdamW(groups, lr=schedule.at(0), betas=(0.9, 0.999), fused=True)

    def step(self, step: int) -> dict[str, float]:
        """Apply the gradients of a step and clear them; gives ``grad_norm`` and ``lr``.

        Raises:
            FloatingPointError: The gradients are not finite; the weights are as before.
        """
        rate = self.schedule.at(step)
        for group in self._adam.param_groups:
            group["lr"] = rate
        norm = float(torch.nn.utils.clip_grad_norm_(self._weights, self._max_grad_norm))
        if not math.isfinite(norm):
            self._adam.zero_grad(set_to_none=True)
            raise FloatingPointError(
                f"the gradients of step {step + 1} are not finite; lower learning_rate"
            )
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        return {"grad_norm": norm, "lr": rate}

    def state(self) -> dict[str, Any]:
        """Give what a resumed run needs."""
        return self._adam.state_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the state of an earlier run."""
        self._adam.load_state_dict(dict(state))
