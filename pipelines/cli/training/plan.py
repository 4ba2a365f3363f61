"""``codedance plan``: what training a model takes, before anything is bought or downloaded."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion
from ..options import Json

if TYPE_CHECKING:
    from ....policies.models.model_shape import ModelShape
    from ....policies.training.memory_plan import Gpu, Holding, Stage, Workload

_HEAD = ("stage", "trains", "weights", "grads", "optim", "activ.", "cache", "peak", "s/step")
_WIDTH = 80
_LARGE = 2e8  # parameters from which gigabytes are the unit


def plan(  # noqa: PLR0913 - each an option of the command
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Published name, model folder, or a config.json."),
    ] = "Qwen/Qwen2.5-VL-7B-Instruct",
    gpus: Annotated[str, typer.Option(help="How many, such as 8; several with commas.")] = "1,8,16",
    gpu: Annotated[
        str,
        typer.Option(
            help=f"Which: {', '.join(completion.GPUS)}.",
            autocompletion=completion.one_of(*completion.GPUS),
        ),
    ] = "h100",
    trajectories: Annotated[int, typer.Option(min=1, help="Learnt from in a step.")] = 512,
    tokens: Annotated[int, typer.Option(min=16, help="Of a trajectory, all of it.")] = 8192,
    own: Annotated[int, typer.Option(min=1, help="Of those, the policy's own.")] = 1024,
    pictures: Annotated[int, typer.Option(min=0, help="Of those, of pictures.")] = 4096,
    slots: Annotated[int, typer.Option(min=1, help="Trajectories written at once, a GPU.")] = 32,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapters, where there are any.")] = 16,
    json: Json = False,
) -> None:
    """Tell the memory and time that SFT and GRPO take on each of so many GPUs.

    Computed from the configuration alone. No network is asked.
    """
    from ....policies.models.model_shape import read_shape
    from ....policies.training.memory_plan import GPUS, Workload
    from ..document import document

    if gpu not in GPUS:
        raise typer.BadParameter(f"one of {', '.join(GPUS)}, got {gpu!r}", param_hint="--gpu")
    if own + pictures > tokens:
        raise typer.BadParameter(f"--own {own} and --pictures {pictures} exceed --tokens {tokens}")
    counts = _counts(gpus)
    shape = read_shape(model)
    work = Workload(trajectories, tokens, own, pictures, slots)
    with document(json) as publish:
        _show(shape, work, gpu, counts, rank, model=model)
        plans = [
            _entry(shape, work, GPUS[gpu], how)
            for count in counts
            for how in _holdings(count, rank)
        ]
        publish({"model": model, "parameters": shape.parameters, "gpu": gpu, "plans": plans})


def _show(
    shape: ModelShape, work: Workload, gpu: str, counts: list[int], rank: int, *, model: str
) -> None:
    from ....policies.training.memory_plan import GPUS
    from ..output import say

    size, unit = (1e9, "GB") if shape.parameters > _LARGE else (1e6, "MB")
    say(f"{model}: {shape.parameters:,} parameters, {shape.text.layers} layers")
    for count in counts:
        say()
        each = "one" if count == 1 else f"each of {count}"
        say(f"{each} {gpu}, {GPUS[gpu].memory / 1e9:.0f} GB; figures in {unit}")
        rows = [_row(shape, work, how, GPUS[gpu], size) for how in _holdings(count, rank)]
        _print_table(rows)
    say()
    for line in _notes(work, rank):
        say(textwrap.fill(line, _WIDTH, subsequent_indent="  "))


def _entry(
    shape: ModelShape, work: Workload, gpu: Gpu, how: tuple[Stage, Holding]
) -> dict[str, object]:
    """Return bytes and seconds of one way to train."""
    from ....policies.training.memory_plan import plan_memory, plan_seconds

    stage, holding = how
    memory = plan_memory(shape, work, holding, stage)
    return {
        "stage": stage,
        "holding": holding,
        "bytes": memory,
        "peak_bytes": memory.peak,
        "fits": memory.peak <= gpu.memory,
        "seconds": plan_seconds(shape, work, holding, stage, gpu),
    }


def _counts(gpus: str) -> list[int]:
    """Read numbers with commas between them."""
    try:
        counts = [int(part) for part in gpus.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        message = f"a number, or several with commas between, got {gpus!r}"
        raise typer.BadParameter(message, param_hint="--gpus")
    return counts


def _holdings(count: int, rank: int) -> list[tuple[Stage, Holding]]:
    """Return every way to train that the tables compare."""
    from ....policies.training.memory_plan import Holding

    stages: tuple[Stage, ...] = ("sft", "grpo")
    return [
        (stage, Holding(lora_r=lora_r, gradient_checkpointing=checkpointing, gpus=count))
        for stage in stages
        for lora_r in (0, rank)
        for checkpointing in (True, False)
    ]


def _row(
    shape: ModelShape, work: Workload, how: tuple[Stage, Holding], gpu: Gpu, size: float
) -> tuple[str, ...]:
    from ....policies.training.memory_plan import plan_memory, plan_seconds

    stage, holding = how
    memory = plan_memory(shape, work, holding, stage)
    seconds = plan_seconds(shape, work, holding, stage, gpu)
    took = seconds.generation + seconds.update
    trains = "adapters" if holding.lora_r else "all"
    parts = (
        memory.weights + memory.working,
        memory.gradients,
        memory.optimiser,
        memory.activations,
        memory.cache + memory.gathered,
    )
    fits = memory.peak <= gpu.memory
    return (
        stage,
        trains if holding.gradient_checkpointing else f"{trains}, no ckpt",
        *(f"{part / size:.1f}" for part in parts),
        f"{memory.peak / size:.1f}" + ("" if fits else " !"),
        f"{took:.0f}" if took >= 10 else f"{took:.2g}",
    )


def _notes(work: Workload, rank: int) -> list[str]:
    from ....policies.training.memory_plan import READ_SHARE, TRAIN_SHARE

    return [
        f"A step learns from {work.trajectories} trajectories of {work.tokens:,} tokens, "
        f"{work.own_tokens:,} of them the policy's, {work.picture_tokens:,} of pictures; one "
        f"at a time in memory; {work.slots} written at once on each GPU.",
        "bfloat16 weights, float32 copies and gradient sums for what is trained; adapters of "
        f"rank {rank} on the text model's projections. 'no ckpt' keeps all activations.",
        "cache: keys and values, and the weights of other shards while writing. It and the "
        "activations are not needed at once. ! is more than the GPU has; leave a tenth free.",
        f"Seconds assume {TRAIN_SHARE:.0%} of the GPU's peak in training and {READ_SHARE:.0%} of "
        "its bandwidth in writing, no sandbox, no network.",
        "More than one GPU means weights, gradients and optimiser sharded evenly (FSDP, ZeRO-3).",
    ]


def _print_table(rows: list[tuple[str, ...]]) -> None:
    from ..output import say

    widths = [max(len(row[n]) for row in (_HEAD, *rows)) for n in range(len(_HEAD))]
    for row in (_HEAD, *rows):
        cells = [
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())
