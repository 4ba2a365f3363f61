"""Options shared by several commands, each with one name and one meaning."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from ..config.registry import known_names
from . import completion
from .cores import use_workers

Preset = Annotated[
    str | None,
    typer.Option(
        help="A preset of flows.yaml: smoke, quick, full, or your own.",
        autocompletion=completion.presets,
    ),
]
_LARGEST_SEED = 2**63 - 1


def fitting_seed(seed: int | None) -> int | None:
    """Reject a seed that does not fit a database column."""
    if seed is not None and not -_LARGEST_SEED - 1 <= seed <= _LARGEST_SEED:
        raise typer.BadParameter(f"at most {_LARGEST_SEED}, got {seed}", param_hint="--seed")
    return seed


Seed = Annotated[int | None, typer.Option(callback=fitting_seed, help="Random seed.")]
Suite = Annotated[
    str | None,
    typer.Option(
        "--suite",
        "--tasks",
        help="A suite, some families of one (nano:count,bars), or your own: a .jsonl of tasks, "
        "a .py of families.",
        autocompletion=completion.suites,
    ),
]
Refresh = Annotated[bool, typer.Option("--refresh", "--fresh", help="Rerun, reusing nothing.")]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Run whose results are the inputs (or: latest).",
        autocompletion=completion.runs,
    ),
]
Processes = Annotated[
    int, typer.Option(min=1, help="Processes for distributed training on this machine.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, callback=use_workers, help="Processor cores to use.")
]
SandboxName = Annotated[
    str | None,
    typer.Option(
        "--sandbox",
        help="Where model code runs: local or docker.",
        autocompletion=completion.one_of(*completion.BACKENDS),
    ),
]


def use_experiment(name: str | None) -> str | None:
    """Send all that this process logs to the MLflow experiment of that name."""
    if name:
        os.environ["MLFLOW_EXPERIMENT_NAME"] = name
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    return name


Experiment = Annotated[
    str | None,
    typer.Option(
        "--experiment", callback=use_experiment, help="MLflow experiment; created if missing."
    ),
]
NoPrefect = Annotated[
    bool,
    typer.Option("--no-prefect", help="Run without Prefect: the same stages, the same results."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A value over the preset's, such as grpo.steps=300; repeatable.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="What generates the replies of models: own, or vllm.",
        autocompletion=completion.one_of("own", "vllm"),
    ),
]
EngineUrl = Annotated[
    list[str] | None,
    typer.Option(
        "--engine-url",
        metavar="URL",
        help="A vLLM server, repeatable; without one, vllm is started here.",
    ),
]


Colocated = Annotated[
    bool,
    typer.Option(
        "--colocated",
        help="vllm shares the training's GPU, and sleeps while weights are updated.",
    ),
]


def with_engine(
    settings: list[str] | None,
    engine: str | None,
    urls: list[str] | None,
    *,
    colocated: bool = False,
) -> list[str] | None:
    """Return the values of ``--set`` with those of the options of the engine."""
    for option, is_given in (("--engine-url", urls), ("--colocated", colocated)):
        if is_given and engine not in (None, "vllm"):
            raise typer.BadParameter(
                f"for a server of vllm, but --engine is {engine}", param_hint=option
            )
    found = list(settings or ())
    if engine or urls or colocated:
        found.append(f"rollout.engine={engine or 'vllm'}")
    if colocated:
        found.append("rollout.colocated=true")
    if urls:
        found.append(f"rollout.urls={json.dumps(urls)}")
    return found or None


RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's id, or latest.", autocompletion=completion.runs),
]
Policy = Annotated[
    str | None,
    typer.Option(
        help="nano, oracle, random, a checkpoint folder or a hub id.",
        autocompletion=completion.policies,
    ),
]
STAGES = ("pipeline", *known_names())


def _one_of_the_stages(stage: str | None) -> str | None:
    if stage is not None and stage not in STAGES:
        raise typer.BadParameter(f"one of {', '.join(STAGES)}, got {stage!r}", param_hint="--stage")
    return stage


Stage = Annotated[
    str | None,
    typer.Option(
        callback=_one_of_the_stages,
        help=f"Stage to list: {', '.join(STAGES)}.",
        autocompletion=completion.one_of(*STAGES),
    ),
]
Most = Annotated[int, typer.Option("--limit", min=0, help="Maximum number; 0 for all.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Number of tasks to evaluate on.")]
Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on standard output; text goes to stderr."),
]
