"""Extension of vLLM's worker, imported by vLLM alone: load weights, packed copies included.

On CPUs vLLM keeps a packed copy of each matrix. `reload_weights` packs those again that it loads,
but not the head of a model whose head is tied to its embedding: that would keep its old weights.
"""

from __future__ import annotations

from typing import Any


class WeightLoader:
    """Mixed into vLLM's worker by ``--worker-extension-cls``."""

    def load_folder(self, weights_path: str) -> None:
        """Load the weights of a folder in place.

        Args:
            weights_path: Model folder of the same architecture.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import (  # pyright: ignore
            ParallelLMHead,
        )

        worker: Any = self
        worker.reload_weights(weights_path=weights_path)
        for module in worker.model_runner.get_model().modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
