"""Training settings that SFT and GRPO share: precision, memory and adapters."""

from __future__ import annotations

from dataclasses import dataclass

TEXT_PROJECTIONS = r".*(language_model|text_model).*\.(q|k|v|o|gate|up|down)_proj"
"""Layers that get adapters by default: all projections of the text model."""


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """Precision, memory and adapter settings of training; names as in TRL.

    Attributes:
        bf16: Whether weights are in bfloat16; False leaves them in the checkpoint's type.
        gradient_checkpointing: Whether activations are recomputed instead of stored.
        lora_r: Rank of the adapters; 0 trains all weights.
        lora_alpha: Scale of the adapters, as ``lora_alpha / lora_r``.
        lora_dropout: Dropout of the adapters' inputs.
        lora_target_modules: Regular expression of the layers that get an adapter; empty for all
            projections of the text model.
        merge_lora: Whether adapters are merged into the saved model; False saves them alone.
        fsdp: Whether weights, gradients and optimiser state are sharded over the processes; the
            result is the same.
    """

    bf16: bool = False
    gradient_checkpointing: bool = False
    lora_r: int = 0
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_target_modules: str = ""
    merge_lora: bool = True
    fsdp: bool = False

    def __post_init__(self) -> None:
        """Reject invalid adapter settings."""
        if self.lora_r < 0 or self.lora_alpha < 1:
            raise ValueError(
                f"lora_r must be at least 0 and lora_alpha at least 1, got {self.lora_r} and "
                f"{self.lora_alpha}"
            )
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ValueError(f"lora_dropout must be in [0, 1), got {self.lora_dropout}")
