"""A model prepared for training: precision, gradient checkpointing, adapters, and saving.

In bfloat16 weights, gradients and activations are half as large; the optimiser stores weights and
gradient sums in float32, or small updates would be lost to rounding. With adapters (LoRA, arXiv
2106.09685) only they are trained and saved; at the end they are merged, unless set otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..models.model_folder import load_token_model, quiet, save_adapter, save_token_model
from ..models.token_model import Padded, TokenModel
from ..seeds import derive_seed
from .distributed.processes import World, is_sharding_asked
from .distributed.sharding import Scorer, copy_whole, load_weights, whole_values
from .training_setup import TEXT_PROJECTIONS, TrainingSetup


class TrainedModel:
    """A model in training.

    Args:
        source: Folder or hub id of the initial model.
        setup: Precision, memory and adapter settings.
        seed: Random seed of the adapters' initial weights and of dropout.
        world: Processes of the distributed launch.
        device: Device of the weights; None for a GPU where there is one.
    """

    def __init__(
        self,
        source: str | Path,
        setup: TrainingSetup,
        *,
        seed: int,
        world: World | None = None,
        device: str | None = None,
    ) -> None:
        self.world = world or World()
        self.model: TokenModel = load_token_model(source, device=device)
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
        wants_shards = (setup.fsdp or is_sharding_asked()) and self.world.size > 1
        self._scorer: Scorer | None = None
        if wants_shards:
            if setup.bf16:
                network.to(torch.bfloat16)  # adapters too: a layer has one dtype
            self._scorer = Scorer(self.model)

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds only a part of the weights."""
        return self._scorer is not None

    @property
    def has_adapters(self) -> bool:
        """Whether adapters are trained, and the other weights stay as they were."""
        return self._adapters is not None

    @property
    def gradient_scale(self) -> float:
        """Factor that a loss is multiplied with: gradients of sharded weights are averaged."""
        return float(self.world.size) if self.is_sharded else 1.0

    def score(
        self,
        batch: Padded,
        chosen: Tensor,
        *,
        mask: Tensor | None = None,
        temperature: float | None = None,
    ) -> Tensor:
        """Score the chosen tokens, with gradients; see `TokenModel.log_probabilities`."""
        scorer = self.model.log_probabilities if self._scorer is None else self._scorer
        return scorer(batch, chosen, mask=mask, temperature=temperature)

    @contextlib.contextmanager
    def without_adapters(self) -> Generator[None]:
        """Switch the adapters and dropout off while the context lasts: the initial weights act.

        Raises:
            ValueError: There are no adapters.
        """
        if self._adapters is None:
            raise ValueError("without_adapters needs adapters, got none; set lora_r")
        network = self.model.model
        trained = [one for one in network.parameters() if one.requires_grad]
        was_training = network.training
        network.eval()
        try:
            with self._adapters.disable_adapter():
                for one in trained:  # sharding takes over for good what it meets here
                    one.requires_grad_(True)
                yield
        finally:
            network.train(was_training)

    def begin_step(self, step: int) -> None:
        """Enter training mode; dropout is a function of seed and step, so resuming repeats it."""
        self.model.model.train()
        if self._setup.lora_dropout:
            rank = (self.world.rank,) if self.world.rank else ()
            torch.manual_seed(derive_seed("dropout", self._seed, step, *rank))

    def weights(self) -> dict[str, Tensor]:
        """Return the trained weights, unsharded: all weights, or the adapters alone.

        Where they are sharded, all processes have to call this, and the first one gets them.
        """
        network = self.model.model
        if self._adapters is None:
            return whole_values(dict(network.state_dict()))
        named = network.named_parameters()
        return whole_values({name: one.detach() for name, one in named if one.requires_grad})

    def whole_copy(self) -> TrainedModel:
        """Return an unsharded copy of the initial model, in main memory; see `copy_to`."""
        copy = TrainedModel(self._source, self._setup, seed=self._seed, device="cpu")
        copy.world = self.world
        return copy

    def copy_to(self, copy: TrainedModel | None) -> None:
        """Copy the trained weights, gathered one by one, into a `whole_copy`.

        Where they are sharded, all processes have to call this, with None where there is no copy.
        """
        whole = None if copy is None else copy.model.model
        copy_whole(self.model.model, whole, trained_only=self.has_adapters)

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Restore the weights of an earlier run."""
        if self.is_sharded:
            load_weights(self.model.model, weights)
        else:
            self.model.model.load_state_dict(weights, strict=self._adapters is None)

    def save(self, folder: Path) -> None:
        """Write the trained model as a loadable folder; adapters are merged if set so.

        Where weights are sharded, all processes have to call this; the first one writes.
        """
        if self.is_sharded:
            copy = self.whole_copy() if self.world.is_first else None
            self.copy_to(copy)
            if copy is not None:
                copy.save(folder)
            return
        if not self.world.is_first:
            return
        if self._adapters is not None and not self._setup.merge_lora:
            save_adapter(self._adapters, self.model, folder, like=self._source)
            return
        if self._adapters is not None:
            self._adapters.merge_and_unload()
            self._adapters = None
        save_token_model(self.model, folder, like=self._source)

    def hand_over(self, folder: Path) -> None:
        """Write what an engine needs to have these weights: all of them, or the adapters alone."""
        with quiet():
            if self._adapters is None:
                self.model.model.save_pretrained(folder)
            else:
                self._adapters.save_pretrained(folder, save_embedding_layers=False)

    def checkpoint_weights(self) -> dict[str, Tensor]:
        """Return all weights by their names in a checkpoint; adapters are not among them."""
        network: Any = self.model.model
        return {name: values.detach() for name, values in network.state_dict().items()}

    def _add_adapters(self, network: Any) -> Any:  # noqa: ANN401 - untyped library objects
        from peft import LoraConfig, get_peft_model

        setup = self._setup
        # What peft writes as the base model: a folder of adapters too, which are merged in it.
        base = Path(self._source)
        network.name_or_path = str(base.resolve() if base.exists() else self._source)
        config = LoraConfig(
            r=setup.lora_r,
            lora_alpha=setup.lora_alpha,
            lora_dropout=setup.lora_dropout,
            target_modules=setup.lora_target_modules or TEXT_PROJECTIONS,
            base_model_name_or_path=network.name_or_path,
        )
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed("adapters", self._seed))
            return get_peft_model(network, config)


def _checkpoint_activations(network: Any) -> None:  # noqa: ANN401 - any transformers model
    newer = getattr(network, "activation_checkpointing_enable", None)  # transformers before 5.23
    enable = network.gradient_checkpointing_enable if newer is None else newer
    enable({"use_reentrant": False})
