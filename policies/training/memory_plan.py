"""Memory and time estimates of training a model, per GPU.

Weights, gradients and optimiser state are counted; activations are summed up operation by operation
for one micro-batch of one trajectory, as our trainer computes it (scaled-dot-product attention,
logits of the policy's own tokens only). On several GPUs, weights, gradients, optimiser state and
the reference are sharded evenly and trajectories are divided; each GPU holds one more layer
gathered, and while it generates replies a whole copy of the weights. Times follow from operations
and memory reads at assumed shares of the GPU's peak, so they are rough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..models.model_shape import ModelShape, Tower

Stage = Literal["sft", "grpo"]

TRAIN_SHARE = 0.4
"""Assumed share of a GPU's peak operations that training reaches."""
_PATCH_VALUES = 3 * 2 * 14 * 14  # channels, frames, pixels
READ_SHARE = 0.6
"""Assumed share of a GPU's memory bandwidth that generation reaches."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        memory: Memory, in bytes.
        flops: Dense bfloat16 operations per second.
        bandwidth: Memory bandwidth, in bytes per second.
    """

    memory: float
    flops: float
    bandwidth: float


GPUS = {
    "4090": Gpu(24e9, 165e12, 1.0e12),
    "l40s": Gpu(48e9, 362e12, 0.86e12),
    "a100": Gpu(80e9, 312e12, 2.0e12),
    "h100": Gpu(80e9, 989e12, 3.35e12),
    "h200": Gpu(141e9, 989e12, 4.8e12),
    "b200": Gpu(180e9, 2250e12, 8.0e12),
}


@dataclass(frozen=True, slots=True)
class Workload:
    """Training data of one step.

    Attributes:
        trajectories: Trajectories per step, over all GPUs.
        tokens: Tokens per trajectory, images and tool replies included.
        own_tokens: Tokens per trajectory that the policy generated.
        picture_tokens: Image tokens per trajectory.
        slots: Trajectories generated concurrently per GPU.
    """

    trajectories: int = 512
    tokens: int = 8192
    own_tokens: int = 1024
    picture_tokens: int = 4096
    slots: int = 32


@dataclass(frozen=True, slots=True)
class Holding:
    """Precision and memory layout of the model.

    Attributes:
        bf16: Weights in bfloat16, with exact copies in the optimiser; else float32.
        lora_r: Rank of the adapters; 0 trains all weights.
        gradient_checkpointing: Whether layers store only their input.
        gpus: Number of GPUs that share the weights.
        keeps_reference: Whether GRPO has a KL term, whose reference is in memory, unless adapters
            are trained: then it is the model without them.
        is_served: Whether servers on other GPUs generate the replies.
    """

    bf16: bool = True
    lora_r: int = 0
    gradient_checkpointing: bool = True
    gpus: int = 1
    keeps_reference: bool = False
    is_served: bool = False

    @property
    def width(self) -> int:
        """Bytes per number."""
        return 2 if self.bf16 else 4


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory per GPU, in bytes.

    Attributes:
        weights: Weights of the model, and of the reference.
        gradients: Gradient sums over the micro-batches of a step.
        optimiser: Moments, and exact copies of weights in half precision.
        working: Layers gathered from other GPUs.
        activations: Peak activations of one micro-batch.
        cache: Keys and values of the trajectories being generated; 0 in SFT.
        acting: Whole copy of sharded weights, which generates replies and is in main memory during
            the update; 0 in SFT.
    """

    weights: float
    gradients: float
    optimiser: float
    working: float
    activations: float
    cache: float
    acting: float

    @property
    def peak(self) -> float:
        """Peak memory: generation and update do not happen at the same time."""
        resident = self.weights + self.gradients + self.optimiser + self.working
        return resident + max(self.activations, self.cache + self.acting)


def trained_parameters(shape: ModelShape, holding: Holding) -> int:
    """Return the number of trained parameters."""
    if holding.lora_r:
        return shape.text.layers * shape.text.adapted * holding.lora_r
    return shape.parameters


def plan_memory(shape: ModelShape, work: Workload, holding: Holding, stage: Stage) -> Memory:
    """Return the memory of each GPU in a stage."""
    trained, width = trained_parameters(shape, holding), holding.width
    held = shape.parameters * width + (4.0 * trained if holding.lora_r else 0.0)
    has_second = holding.keeps_reference and stage == "grpo" and not holding.lora_r
    layer = max(shape.text.largest_layer, shape.vocabulary * shape.text.width)
    exact_copy = 4 if holding.bf16 and not holding.lora_r else 0  # adapters are exact
    slots = min(work.slots, -(-work.trajectories // holding.gpus))
    generates = stage == "grpo" and not holding.is_served
    return Memory(
        weights=held * (2 if has_second else 1) / holding.gpus,
        gradients=4.0 * trained / holding.gpus,
        optimiser=(8.0 + exact_copy) * trained / holding.gpus,
        working=0.0 if holding.gpus == 1 else 2.0 * layer * width,
        activations=activation_bytes(shape, work, holding),
        cache=slots * work.tokens * cache_bytes(shape, holding) if generates else 0.0,
        acting=held if generates and holding.gpus > 1 else 0.0,
    )


def cache_bytes(shape: ModelShape, holding: Holding) -> int:
    """Return the bytes of one token's keys and values."""
    text = shape.text
    return 2 * text.layers * text.kv_heads * text.head_width * holding.width


def activation_bytes(shape: ModelShape, work: Workload, holding: Holding) -> float:
    """Return the peak activation bytes of one trajectory, over forward and backward pass."""
    own = work.own_tokens * shape.vocabulary
    kept = kept_bytes(shape, work, holding)
    passing = own * (4.0 + (holding.width if holding.bf16 else 0))  # logits, before their loss
    if not holding.gradient_checkpointing:
        return kept + passing
    # Layers are recomputed one at a time, after the logits were freed.
    again = max(n * _layer_bytes(tower, holding) for tower, n in _parts(shape, work))
    return max(kept + passing, kept - 4.0 * own + again)


def kept_bytes(shape: ModelShape, work: Workload, holding: Holding) -> float:
    """Return the bytes that one trajectory's forward pass stores for its backward pass."""
    frugal = holding.gradient_checkpointing
    layers = sum(
        tower.layers
        * count
        * (tower.width * holding.width if frugal else _layer_bytes(tower, holding))
        for tower, count in _parts(shape, work)
    )
    logits = 4.0 * work.own_tokens * shape.vocabulary
    return layers + logits + _end_bytes(shape, work, holding)


def _parts(shape: ModelShape, work: Workload) -> tuple[tuple[Tower, int], tuple[Tower, int]]:
    """Return each tower with its sequence length; four patches make an image token."""
    return (shape.text, work.tokens), (shape.vision, 4 * work.picture_tokens)


def _end_bytes(shape: ModelShape, work: Workload, holding: Holding) -> float:
    """Return the bytes outside the layers: patches, merger, embeddings, final norms."""
    width, text, vision = holding.width, shape.text.width, shape.vision.width
    patches = 4 * work.picture_tokens
    pixels = patches * _PATCH_VALUES * width
    merger = patches * vision * (4 + 2 * width) + work.picture_tokens * 3 * 4 * vision * width
    ends = work.tokens * text * (4 + 3 * width)
    return pixels + merger + ends


def _layer_bytes(tower: Tower, holding: Holding) -> float:
    """Return the bytes that one layer stores per token.

    Two norms store their input (in float32), the normed input and their output; attention stores
    query, key and value (with a head each), its output and that output's copy; the gated
    feed-forward part stores four inner vectors.
    """
    width = holding.width
    norms = 2 * tower.width * (4 + 2 * width)
    heads = tower.heads * tower.head_width
    attention = 5 * heads * width
    return norms + attention + 4 * tower.inner * width


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall time of a step, in seconds.

    Attributes:
        generation: Time to generate the trajectories; 0 in SFT, and where servers do it.
        update: Time of the weight update.
    """

    generation: float
    update: float


def plan_seconds(
    shape: ModelShape, work: Workload, holding: Holding, stage: Stage, gpu: Gpu
) -> Seconds:
    """Estimate the wall time of a step, sandbox excluded."""
    each = -(-work.trajectories // holding.gpus)
    passes = 2.0 if holding.lora_r else 3.0  # in multiples of a forward pass's operations
    passes += 1.0 if holding.gradient_checkpointing else 0.0
    passes += 1.0 if holding.keeps_reference and stage == "grpo" else 0.0
    forward = forward_flops(shape, work)
    update = each * passes * forward / (gpu.flops * TRAIN_SHARE)
    if stage == "sft" or holding.is_served:
        return Seconds(0.0, update)
    slots = min(work.slots, each)
    read = shape.parameters * holding.width + slots * work.tokens * cache_bytes(shape, holding) / 2
    drawing = -(-each // slots) * work.own_tokens * read / (gpu.bandwidth * READ_SHARE)
    reading = each * forward / (gpu.flops * TRAIN_SHARE)
    return Seconds(drawing + reading, update)


def forward_flops(shape: ModelShape, work: Workload) -> float:
    """Return the operations of one trajectory's forward pass, in matrix products."""
    text, vision, patches = shape.text, shape.vision, 4 * work.picture_tokens
    return (
        2.0 * text.parameters * work.tokens
        + attention_flops(shape, work)
        + 2.0 * vision.parameters * patches
        + 2.0 * shape.vocabulary * text.width * work.own_tokens
    )


def attention_flops(shape: ModelShape, work: Workload) -> float:
    """Return the operations of causal attention over one trajectory: half a square, twice."""
    text = shape.text
    return 2.0 * text.layers * text.heads * text.head_width * work.tokens**2
