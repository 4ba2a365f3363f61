"""``codedance run`` and the training stages alone."""

from __future__ import annotations

from typing import Annotated

import typer

Preset = Annotated[str | None, typer.Option(help="smoke, quick or full, from flows.yaml.")]
Seed = Annotated[int | None, typer.Option(help="Of every draw.")]
Tasks = Annotated[
    str | None,
    typer.Option("--tasks", "--suite", help="A suite, or your own tasks: a .jsonl file."),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Do it again, reuse nothing.")]
From = Annotated[
    str | None, typer.Option("--from", help="Run whose results are the inputs (or: latest).")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processor cores to use.")]
SandboxName = Annotated[
    str | None, typer.Option("--sandbox", help="Where model code runs: local or docker.")
]
Prefect = Annotated[bool, typer.Option("--prefect/--no-prefect", hidden=True)]


def run(  # noqa: PLR0913 - the options of the command
    preset: Preset = "quick",
    seed: Seed = 0,
    tasks: Tasks = None,
    fresh: Fresh = False,
    workers: Workers = None,
    sandbox: SandboxName = None,
    prefect: Prefect = True,
) -> None:
    """Curate, cold start, reinforce, evaluate, report: the whole story in one command.

    Interrupt it whenever you like: the same command goes on where it was.
    """
    from ..stages.orders import Wish
    from .stages import run_pipeline

    wish = Wish(preset or "quick", seed or 0, tasks, fresh, sandbox=sandbox)
    run_pipeline(wish, workers=workers, prefect=prefect)


def curate(  # noqa: PLR0913 - the options of the command
    preset: Preset = None,
    seed: Seed = None,
    tasks: Tasks = None,
    fresh: Fresh = False,
    from_run: From = None,
    workers: Workers = None,
    sandbox: SandboxName = None,
    prefect: Prefect = True,
) -> None:
    """Choose the train tasks worth learning from, and demonstrate them."""
    from ..stages.orders import Wish
    from .stages import run_alone

    wish = Wish(preset, seed, tasks, fresh, from_run, sandbox)
    run_alone("curate", wish, workers=workers, prefect=prefect)


def sft(
    preset: Preset = None,
    seed: Seed = None,
    fresh: Fresh = False,
    from_run: From = None,
    workers: Workers = None,
    prefect: Prefect = True,
) -> None:
    """Train on the demonstrations (cold start)."""
    from ..stages.orders import Wish
    from .stages import run_alone

    run_alone("sft", Wish(preset, seed, None, fresh, from_run), workers=workers, prefect=prefect)


def grpo(  # noqa: PLR0913 - the options of the command
    preset: Preset = None,
    seed: Seed = None,
    fresh: Fresh = False,
    from_run: From = None,
    workers: Workers = None,
    sandbox: SandboxName = None,
    prefect: Prefect = True,
) -> None:
    """Reinforce the cold start's model (GRPO)."""
    from ..stages.orders import Wish
    from .stages import run_alone

    wish = Wish(preset, seed, None, fresh, from_run, sandbox)
    run_alone("grpo", wish, workers=workers, prefect=prefect)
