"""Memory of one GPU that a training and its vLLM server share, and the server's share of it.

They take turns. While the server generates replies the training keeps its weights, a reference and
the optimiser's state; while the weights are updated the server keeps what its process takes even
asleep. What the training leaves is the server's: its weights, its working memory, and the rest for
keys and values. The figures of libraries and of vLLM are assumptions: none was measured by us.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..models.model_shape import ModelShape
from .memory_plan import Holding, Workload, cache_bytes, plan_memory, trained_parameters

CONTEXT_BYTES = 0.6e9
"""Assumed memory of one process's CUDA context and libraries."""
WORKING_BYTES = 2.0e9
"""Assumed memory with which vLLM computes: activations of prompts and images, CUDA graphs."""
ASLEEP_BYTES = 0.9e9
"""Assumed part of that which vLLM keeps asleep."""
SPARE_SHARE = 0.05
"""Share of the GPU that is left free, for memory in pieces."""


@dataclass(frozen=True, slots=True)
class SharedGpu:
    """Memory of a GPU that training and server share, in bytes.

    Attributes:
        total: Memory of the GPU.
        model: The training's weights, reference included.
        optimiser: The optimiser's state.
        gradients: Gradient sums, during the update alone.
        activations: Activations of one micro-batch, during the update alone.
        engine: The server's weights and working memory, awake.
        token: Keys and values of one token.
        main: Main memory that the sleeping server's weights and those handed over take.
    """

    total: float
    model: float
    optimiser: float
    gradients: float
    activations: float
    engine: float
    token: int
    main: float

    @property
    def kept(self) -> float:
        """What the training keeps while the server generates."""
        return self.model + self.optimiser + CONTEXT_BYTES

    @property
    def share(self) -> float:
        """Share of the memory for the server, in hundredths: vLLM counts it without its context."""
        left = self.total * (1.0 - SPARE_SHARE) - self.kept - CONTEXT_BYTES
        return max(0.0, math.floor(100.0 * left / self.total) / 100.0)

    @property
    def cache(self) -> float:
        """What the share leaves for keys and values."""
        return max(0.0, self.share * self.total - self.engine)

    @property
    def generating(self) -> float:
        """Memory in use while the server generates; more than there is where it does not fit."""
        return self.kept + CONTEXT_BYTES + self.engine + self.cache

    @property
    def updating(self) -> float:
        """Memory in use while the weights are updated."""
        asleep = CONTEXT_BYTES + ASLEEP_BYTES
        return self.kept + self.gradients + self.activations + asleep

    def fits(self, tokens: int) -> bool:
        """Return whether both phases fit, with a cache for one trajectory of ``tokens``."""
        room = self.total * (1.0 - SPARE_SHARE)
        return self.updating <= room and self.generates(tokens)

    def generates(self, tokens: int) -> bool:
        """Return whether the server fits, with a cache for one trajectory of ``tokens``."""
        return self.share * self.total >= self.engine + tokens * self.token


def plan_shared_gpu(
    shape: ModelShape, work: Workload, holding: Holding, *, total: float
) -> SharedGpu:
    """Return the memory of a GPU that GRPO and its server share.

    Args:
        shape: Sizes of the model.
        work: Training data of one step.
        holding: Precision and memory layout; on one GPU.
        total: Memory of the GPU, in bytes.
    """
    memory = plan_memory(shape, work, holding, "grpo")
    weights = float(shape.parameters * holding.width)
    trained = trained_parameters(shape, holding)
    adapters = 2.0 * holding.width * trained if holding.lora_r else 0.0  # of two steps
    handed = 4.0 * trained if holding.lora_r else weights
    return SharedGpu(
        total=total,
        model=memory.weights,
        optimiser=memory.optimiser,
        gradients=memory.gradients,
        activations=memory.activations,
        engine=weights + adapters + WORKING_BYTES,
        token=cache_bytes(shape, holding),
        main=weights + adapters + 2.0 * handed,  # the new ones are written before the old ones go
    )
