"""How a model is held while it is trained: the settings that SFT and GRPO share."""

from __future__ import annotations

from dataclasses import dataclass

TEXT_PROJECTIONS = r".*(language_model|text_model).*\.(q|k|v|o|gate|up|down)_proj"
"""Which layers get adapters by default: all projections of the text model."""


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """How a model is held while it is trained; names as in TRL.

    Attributes:
        bf16: Hold weights in bfloat16; False leaves them as the checkpoint has them.
        gradient_checkpointing: Compute activations again instead of keeping them.
        lora_r: Rank of the adapters; 0 trains all weights.
        lora_alpha: Their scale is ``lora_alpha / lora_r``.
        lora_dropout: Of what goes into them.
        lora_target_modules: Regular expression of the layers that get one; empty for all
            projections of the text model.
        merge_lora: Whether the trained model is saved whole; False saves the adapters alone.
        fsdp: Whether several processes each hold a part of the weights, gradients and optimiser
            state; the result is the same.
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
        """Refuse what no model can be held in."""
        if self.lora_r < 0 or self.lora_alpha < 1:
            raise ValueError(
                f"lora_r must be at least 0 and lora_alpha at least 1, got {self.lora_r} and "
                f"{self.lora_alpha}"
            )
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ValueError(f"lora_dropout must be in [0, 1), got {self.lora_dropout}")
