"""``codedance run`` and the single training stages."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion
from ..exit_codes import leave_incomplete
from ..options import (
    Colocated,
    Engine,
    EngineUrl,
    Experiment,
    Json,
    NoPrefect,
    Preset,
    Processes,
    Refresh,
    SandboxName,
    Seed,
    Set,
    Suite,
    Workers,
    with_engine,
)

Resume = Annotated[
    str | None,
    typer.Option(
        help="Run to continue as it was begun, whatever flows.yaml says now (or: latest).",
        autocompletion=completion.runs,
    ),
]
DECIDING = (
    "preset",
    "seed",
    "suite",
    "refresh",
    "sandbox",
    "engine",
    "engine_url",
    "colocated",
    "settings",
)
"""Options that decide what a run is; ``--resume`` goes without them."""


def run(  # noqa: PLR0913 - the options of the command
    context: typer.Context,
    preset: Preset = "quick",
    seed: Seed = 0,
    suite: Suite = None,
    refresh: Refresh = False,
    workers: Workers = None,
    processes: Processes = 1,
    sandbox: SandboxName = None,
    engine: Engine = None,
    engine_url: EngineUrl = None,
    colocated: Colocated = False,
    settings: Set = None,
    resume: Resume = None,
    experiment: Experiment = None,
    json: Json = False,
    no_prefect: NoPrefect = False,
) -> None:
    """Curate, cold start, reinforce, evaluate, report: the whole pipeline in one command.

    It can be interrupted at any time: the same command resumes it, and so does --resume with its
    id where flows.yaml was edited since.
    """
    from ...config.presets import read_overrides
    from ...runs.requests import RunRequest
    from ..document import document
    from .stages import run_pipeline

    if resume is not None:
        _refuse_beside_resume(context)
    asked = resume or RunRequest(
        preset or "quick",
        seed or 0,
        suite,
        refresh,
        sandbox=sandbox,
        overrides=read_overrides(with_engine(settings, engine, engine_url, colocated=colocated)),
    )
    with document(json) as publish:
        made = run_pipeline(asked, workers=workers, prefect=not no_prefect, processes=processes)
        publish(made)
    leave_incomplete(made)


def _refuse_beside_resume(context: typer.Context) -> None:
    for name in DECIDING:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "set" if name == "settings" else name.replace("_", "-")
            raise typer.BadParameter(
                f"--resume continues a run as it was begun: leave --{option} out, or begin another "
                "run without --resume",
                param_hint="--resume",
            )
