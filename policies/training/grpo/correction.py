"""Settings of the correction of a mismatch between engine and trainer, without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

ImportanceSamplingMode = Literal[
    "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"
]
"""How importance weights are bounded; see `importance_weights`."""


@dataclass(frozen=True, slots=True)
class Correction:
    """How a mismatch is corrected in the loss.

    Attributes:
        mode: ``token_truncate`` bounds the weight of each token, ``token_mask`` leaves tokens
            outside the bounds out; ``sequence_truncate`` and ``sequence_mask`` do so with the
            product of a trajectory's weights, for all of its tokens.
        clip_max: Upper bound of a weight; None for none.
        clip_min: Lower bound of a weight; None for none.
        off_policy_mask_threshold: Mean log(π_engine / π_new) of a trajectory, in nats a token,
            above which its tokens with a negative advantage are left out (arXiv 2512.02556,
            eq. 9); None leaves none out.
        is_applied: Whether weights are applied to the loss. The figures are computed regardless.

    Raises:
        ValueError: A bound or the mode is invalid.
    """

    mode: ImportanceSamplingMode = "token_truncate"
    clip_max: float | None = 3.0
    clip_min: float | None = None
    off_policy_mask_threshold: float | None = None
    is_applied: bool = True

    def __post_init__(self) -> None:
        """Reject settings that would bound nothing, or everything."""
        if self.mode not in get_args(ImportanceSamplingMode):
            modes = ", ".join(get_args(ImportanceSamplingMode))
            raise ValueError(
                f"grpo.vllm_importance_sampling_mode is one of {modes}, got {self.mode!r}"
            )
        low, high = self.clip_min, self.clip_max
        for name, value in (("min", low), ("max", high)):
            if value is not None and not (math.isfinite(value) and value >= 0.0):
                raise ValueError(
                    f"grpo.vllm_importance_sampling_clip_{name} must be at least 0, got {value}"
                )
        if low is not None and high is not None and low >= high:
            raise ValueError(
                "grpo.vllm_importance_sampling_clip_min must be below "
                f"vllm_importance_sampling_clip_max, got {low} and {high}"
            )
        if self.is_applied and low is None and high is None and self.mode.endswith("_truncate"):
            raise ValueError(
                f"grpo.vllm_importance_sampling_mode {self.mode} needs a "
                "vllm_importance_sampling_clip_max or _clip_min, got neither"
            )
        limit = self.off_policy_mask_threshold
        if limit is not None and not (math.isfinite(limit) and limit > 0.0):
            raise ValueError(f"grpo.off_policy_mask_threshold must be above 0, got {limit}")


class CorrectionSettings(Protocol):
    """The settings of a correction, by TRL's names."""

    @property
    def vllm_importance_sampling_correction(self) -> bool:
        """Whether weights are applied."""
        ...

    @property
    def vllm_importance_sampling_mode(self) -> ImportanceSamplingMode:
        """How weights are bounded."""
        ...

    @property
    def vllm_importance_sampling_clip_max(self) -> float | None:
        """Upper bound."""
        ...

    @property
    def vllm_importance_sampling_clip_min(self) -> float | None:
        """Lower bound."""
        ...

    @property
    def off_policy_mask_threshold(self) -> float | None:
        """Threshold of the off-policy mask."""
        ...


def correction_of(settings: CorrectionSettings) -> Correction:
    """Return the correction that settings describe.

    Raises:
        ValueError: A bound or the mode is invalid.
    """
    return Correction(
        settings.vllm_importance_sampling_mode,
        settings.vllm_importance_sampling_clip_max,
        settings.vllm_importance_sampling_clip_min,
        settings.off_policy_mask_threshold,
        is_applied=settings.vllm_importance_sampling_correction,
    )
