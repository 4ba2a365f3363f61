"""The signal of a teacher: an estimate of the reverse KL divergence as advantages of tokens.

The divergence of the trained policy π from the teacher π_T in the contexts that π visits,
E_π[log π(y) − log π_T(y)], has the gradient E_π[∇ log π(y) · (log π(y) − log π_T(y))]: that of a
policy gradient with the advantage log π_T(y) − log π(y) of each sampled token (MiniLLM, arXiv
2306.08543; GKD, arXiv 2306.13649; Qwen3, arXiv 2505.09388, section 4.5).

Departure from the divergence of whole trajectories: a token answers for its own term alone, not for
what the contexts after it cost. The contexts are taken as given, as in GKD.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Divergence:
    """Divergence from the teacher over tokens.

    Attributes:
        tokens: Number of tokens that the teacher scored.
        total: Sum over them of log π − log π_T.
    """

    tokens: int = 0
    total: float = 0.0

    def joined(self, other: Divergence) -> Divergence:
        """Return the divergence over the tokens of both."""
        return Divergence(self.tokens + other.tokens, self.total + other.total)

    def metrics(self) -> dict[str, float]:
        """Return the mean as ``distillation/kl``; nothing where the teacher scored no token."""
        return {"distillation/kl": self.total / self.tokens} if self.tokens else {}


def distillation_advantages(
    student: Tensor, teacher: Tensor, *, weight: float
) -> tuple[Tensor, Divergence]:
    """Return what the teacher adds to the advantage of each token, and the divergence from it.

    Args:
        student: Log-probabilities under the trained model before the update, ``(tokens,)``. They
            are the trainer's, not the engine's: what separates those is corrected by the same
            weights as for the rewards' advantages (`mismatch`).
        teacher: Log-probabilities under the teacher, ``(tokens,)``; NaN where it gave none.
        weight: Weight of the term.

    Returns:
        Advantages, ``(tokens,)``: weight · (log π_T − log π), and 0 where the teacher gave none.

    >>> distillation_advantages(
    ...     torch.tensor([-1.0, -2.0, -3.0]),
    ...     torch.tensor([-1.5, -1.0, torch.nan]),
    ...     weight=0.5,
    ... )
    (tensor([-0.2500,  0.5000,  0.0000]), Divergence(tokens=2, total=-0.5))
    """
    is_scored = ~teacher.isnan()
    apart = torch.where(is_scored, teacher - student, torch.zeros_like(student))
    return weight * apart, Divergence(int(is_scored.sum()), -float(apart.double().sum()))
