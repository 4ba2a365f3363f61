"""A model made ready for training: its precision, checkpointing and adapters, and how it is saved.

In bfloat16 weights, gradients and activations are half as large; the optimiser keeps weights and
gradient sums in float32, or small updates would be lost to rounding. With adapters (LoRA, arXiv
2106.09685) only they are trained and saved; at the end they are merged, unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .model_folder import load_token_model, save_adapter, save_token_model
from .seeds import derive_seed
from .token_model import TokenModel
from .training_setup import TEXT_PROJECTIONS, TrainingSetup


class Trainee:
    """A model in training.

    Args:
        source: Folder or hub id that it starts from.
        setup: How it is held.
        seed: Of the adapters' first weights and of dropout.
    """

    def __init__(self, source: str | Path, setup: TrainingSetup, *, seed: int) -> None:
        self.model: TokenModel = load_token_model(source)
        self._source = source
        self._setup = setup
        self._seed = seed
        self._adapters: Any = None
        network = self.model.model
        if setup.bf16:
            network.to(torch.bfloat16)
        if setup.lora_r:
            self._adapters = self._add_adapters(network)
        if setup.gradient_checkpointing:
            network.config.get_text_config().use_cache = False
            _checkpoint_activations(network)

    def begin_step(self, step: int) -> None:
        """Get ready to learn; dropout is a function of seed and step, so a resumed run has it."""
        self.model.model.train()
        if self._setup.lora_dropout:
            torch.manual_seed(derive_seed("dropout", self._seed, step))

    def weights(self) -> dict[str, Tensor]:
        """Give what training changes: all weights, or the adapters alone."""
        if self._adapters is None:
            return dict(self.model.model.state_dict())
        return {n: p.detach() for n, p in self.model.model.named_parameters() if p.requires_grad}

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Take up the weights of an earlier run."""
        self.model.model.load_state_dict(weights, strict=self._adapters is None)

    def save(self, folder: Path) -> None:
        """Write the trained model as a folder that can be loaded; adapters merged if so set."""
        if self._adapters is not None and not self._setup.merge_lora:
            save_adapter(self._adapters, self.model, folder, like=self._source)
            return
        if self._adapters is not None:
            self._adapters.merge_and_unload()
            self._adapters = None
        save_token_model(self.model, folder, like=self._source)

    def _add_adapters(self, network: Any) -> Any:  # noqa: ANN401 - untyped library objects
        from peft import LoraConfig, get_peft_model

        setup = self._setup
        config = LoraConfig(
            r=setup.lora_r,
            lora_alpha=setup.lora_alpha,
            lora_dropout=setup.lora_dropout,
            target_modules=setup.lora_target_modules or TEXT_PROJECTIONS,
            base_model_name_or_path=str(Path(self._source).resolve())
            if Path(self._source).exists()
            else str(self._source),
        )
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed("adapters", self._seed))
            return get_peft_model(network, config)


def _checkpoint_activations(network: Any) -> None:  # noqa: ANN401 - any transformers model
    newer = getattr(network, "activation_checkpointing_enable", None)  # transformers before 5.23
    enable = network.gradient_checkpointing_enable if newer is None else newer
    enable({"use_reentrant": False})
