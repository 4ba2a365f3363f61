"""Share of a GPU's memory for a server that a training shares it with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .command import EngineOptions
from .environment import EngineError

if TYPE_CHECKING:
    from ....policies.training.grpo.config import GRPOConfig


def shared_memory(source: str, config: GRPOConfig, options: EngineOptions) -> float:
    """Return the share of the GPU's memory that a training leaves to its server.

    Args:
        source: Initial model: a folder or hub id.
        config: Settings of the training.
        options: Options of the server.

    Raises:
        EngineError: It is too little, or the model's sizes cannot be read.
    """
    from ....policies.models.model_folder import ModelFolderError
    from ....policies.models.model_shape import read_shape
    from ....policies.training.colocation_plan import plan_shared_gpu
    from ....policies.training.memory_plan import Holding, Workload

    try:
        shape = read_shape(source)
    except (ModelFolderError, AttributeError) as error:
        raise EngineError(
            f"cannot plan the memory of {source} ({error}): set rollout.memory_share, the share of "
            "the GPU that vLLM gets"
        ) from error
    holding = Holding(
        bf16=config.bf16,
        lora_r=config.lora_r,
        gradient_checkpointing=config.gradient_checkpointing,
        keeps_reference=config.beta > 0,
    )
    total = gpu_memory(options.gpus[0])
    found = plan_shared_gpu(shape, Workload(), holding, total=total)
    if not found.generates(options.context):
        raise EngineError(
            f"training and vLLM do not fit the GPU of {total / 1e9:.0f} GB: while vLLM generates, "
            f"the training keeps {found.kept / 1e9:.1f} GB, and vLLM needs "
            f"{found.engine / 1e9:.1f} GB and {options.context * found.token / 1e9:.1f} GB for "
            f"{options.context:,} tokens. "
            "Set grpo.bf16 and grpo.lora_r, take a smaller model, or name rollout.urls of servers "
            "elsewhere (`codedance plan MODEL --gpus 1 --colocated` shows each part)"
        )
    return found.share


def gpu_memory(index: int) -> float:
    """Return the memory of a GPU, in bytes."""
    import torch

    return float(torch.cuda.get_device_properties(index).total_memory)
