"""The tables of ``codedance plan --colocated``: one GPU for training and vLLM in turn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..output import say

if TYPE_CHECKING:
    from ....policies.models.model_shape import ModelShape
    from ....policies.training.colocation_plan import SharedGpu
    from ....policies.training.memory_plan import Holding, Workload

_PHASES = (
    *("trains", "phase", "model", "optim"),
    *("grads", "activ.", "vLLM", "cache", "libs", "peak"),
)
_CARDS = ("GPU", "trains", "fits", "vLLM's share", "tokens cached", "episodes at once")
_SIZES = (24e9, 40e9, 80e9)
_WIDTH = 80
Planned = tuple["Holding", "SharedGpu"]


def plan_colocated(
    shape: ModelShape, work: Workload, holdings: Sequence[Holding], *, total: float
) -> list[dict[str, object]]:
    """Print the plan of one GPU that training and vLLM share; return it for JSON.

    Args:
        shape: Sizes of the model.
        work: Training data of one step.
        holdings: Precision and memory layouts to compare.
        total: Memory of the GPU, in bytes.
    """
    from ....policies.training.colocation_plan import plan_shared_gpu

    def plan(size: float) -> list[Planned]:
        return [(one, plan_shared_gpu(shape, work, one, total=size)) for one in holdings]

    say(f"{shape.name}: {shape.parameters:,} parameters, {shape.text.layers} layers")
    say(f"one GPU of {total / 1e9:.0f} GB, for training and vLLM in turn; figures in GB")
    say()
    _print([_PHASES, *(row for one in plan(total) for row in _phases(*one))], left=2)
    say()
    sizes = sorted({*_SIZES, total})
    _print([_CARDS, *(_card(size, *one, work) for size in sizes for one in plan(size))], left=2)
    say()
    for line in _notes(work, plan(total)):
        say(textwrap.fill(line, _WIDTH, subsequent_indent="  "))
    return [
        {
            "holding": holding,
            "bytes": found,
            "peak_bytes": {"generate": found.generating, "update": found.updating},
            "fits": found.fits(work.tokens),
            "memory_share": found.share,
            "cached_tokens": _cached(found),
            "episodes_at_once": _at_once(found, work),
        }
        for size in sizes
        for holding, found in plan(size)
    ]


def _phases(holding: Holding, found: SharedGpu) -> list[tuple[str, ...]]:
    """Return a row per phase."""
    from ....policies.training.colocation_plan import ASLEEP_BYTES, CONTEXT_BYTES

    trains = "LoRA" if holding.lora_r else "all"
    both, room = 2 * CONTEXT_BYTES, found.total
    rows = [
        ("generate", 0.0, 0.0, found.engine, found.cache, found.generating),
        ("update", found.gradients, found.activations, ASLEEP_BYTES, 0.0, found.updating),
    ]
    return [
        (
            trains,
            phase,
            *(f"{one / 1e9:.1f}" for one in (found.model, found.optimiser, *parts, both)),
            f"{peak / 1e9:.1f}" + (" !" if peak > room else ""),
        )
        for phase, *parts, peak in rows
    ]


def _card(size: float, holding: Holding, found: SharedGpu, work: Workload) -> tuple[str, ...]:
    """Return the row of a GPU of one size."""
    card, trains = f"{size / 1e9:.0f} GB", "LoRA" if holding.lora_r else "all"
    if not found.fits(work.tokens):
        return (card, trains, "no", "-", "-", "-")
    at_once = f"{_at_once(found, work)} of {min(work.slots, work.trajectories)}"
    return (card, trains, "yes", f"{found.share:.2f}", f"{_cached(found):,}", at_once)


def _cached(found: SharedGpu) -> int:
    return int(found.cache // found.token)


def _at_once(found: SharedGpu, work: Workload) -> int:
    """Return the trajectories whose keys and values fit at once, of those that are wanted."""
    return min(_cached(found) // work.tokens, work.slots, work.trajectories)


def _notes(work: Workload, plans: Sequence[Planned]) -> list[str]:
    from ....policies.training.colocation_plan import (
        ASLEEP_BYTES,
        CONTEXT_BYTES,
        SPARE_SHARE,
        WORKING_BYTES,
    )

    main = ", ".join(
        f"{found.main / 1e9:.0f} GB ({'LoRA' if holding.lora_r else 'all'})"
        for holding, found in plans
    )
    return [
        f"GRPO on {work.trajectories} trajectories of {work.tokens:,} tokens per step, in bfloat16 "
        "with gradient checkpointing; one at a time in the update. model and optim stay where "
        "they are while vLLM generates, and are counted twice; vLLM's weights are its own.",
        "vLLM's share is rollout.memory_share (--gpu-memory-utilization). A server that the "
        "training starts gets it by itself; `codedance serve engine MODEL` takes it as "
        "--memory-share.",
        "cache is what is left for keys and values; episodes that find no room wait.",
        f"Assumed, not measured: {CONTEXT_BYTES / 1e9:.1f} GB of libraries per process, "
        f"{WORKING_BYTES / 1e9:.1f} GB with which vLLM computes, {ASLEEP_BYTES / 1e9:.1f} GB that "
        f"it keeps asleep, {SPARE_SHARE:.0%} left free. ! exceeds the GPU's memory.",
        f"Main memory, for the sleeping weights and those handed over: {main}.",
    ]


def _print(rows: Sequence[tuple[str, ...]], *, left: int) -> None:
    """Print a table whose first columns are flush left."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if n < left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())
