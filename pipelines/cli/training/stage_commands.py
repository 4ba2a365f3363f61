"""The command of each stage, such as ``codedance curate``, made from its declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import typer

from ...config.registry import BUILT_IN, EVALUATION, entries, known_names, package_of
from ..exit_codes import leave_incomplete
from ..options import (
    Colocated,
    Engine,
    EngineUrl,
    Experiment,
    From,
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
from ..server_options import Notes, with_notes

OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "preset": (Preset, None),
    "seed": (Seed, None),
    "suite": (Suite, None),
    "refresh": (Refresh, False),
    "from_run": (From, None),
    "workers": (Workers, None),
    "processes": (Processes, 1),
    "sandbox": (SandboxName, None),
    "engine": (Engine, None),
    "engine_url": (EngineUrl, None),
    "notes": (Notes, None),
    "colocated": (Colocated, False),
    "settings": (Set, None),
    "experiment": (Experiment, None),
    "json": (Json, False),
    "no_prefect": (NoPrefect, False),
}
"""Type and default of each option, in the order in which help shows them."""
UNUSED = {
    "curate": ("processes", "colocated"),
    "sft": ("suite", "sandbox", "engine", "engine_url", "notes", "colocated"),
    "grpo": ("suite", "notes"),
}
"""Options that our own stages do not take; tests compare it with their declarations."""


def stage_commands() -> dict[str, Callable[..., None]]:
    """Return a command for each stage but the evaluation, whose command also takes any policy."""
    return {name: _command(name) for name in known_names() if name != EVALUATION}


def replacement_note(name: str) -> str:
    """Return a sentence on the package whose stage this is; empty for our own."""
    point = entries().get(name)
    if point is None:
        return ""
    return f"{'Replaced' if name in BUILT_IN else 'Added'} by {package_of(point)}."


def unused_options(name: str) -> tuple[str, ...]:
    """Return the options of `OPTIONS` that a stage does not take, from its declaration.

    Raises:
        StageLoadError: The stage cannot be loaded.
    """
    from ...config.registry import find_stage

    stage = find_stage(name)
    taken = {
        "suite": not stage.inputs,
        "processes": stage.distributed,
        "sandbox": stage.runs_code,
        "engine": stage.runs_code,
        "engine_url": stage.runs_code,
        "notes": stage.runs_code and not stage.exclusive,  # a training's policy is its own
        "colocated": stage.runs_code and stage.distributed,
    }
    return tuple(option for option, is_taken in taken.items() if not is_taken)


def _command(name: str) -> Callable[..., None]:
    """Return the function of a stage's command; its signature has the options."""
    hidden = () if name in entries() else UNUSED[name]
    offered = {option: OPTIONS[option] for option in OPTIONS if option not in hidden}

    def command(**given: Any) -> None:  # noqa: ANN401 - the options of the signature
        _run(name, {option: default for option, (_, default) in OPTIONS.items()} | given)

    command.__name__ = name
    command.__doc__ = " ".join(filter(None, (BUILT_IN.get(name), replacement_note(name))))
    command.__annotations__ = {option: kind for option, (kind, _) in offered.items()}
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
            for option, (kind, default) in offered.items()
        ]
    )
    return command


def _run(name: str, given: Mapping[str, Any]) -> None:
    from ...config.presets import read_overrides
    from ...runs.requests import RunRequest
    from ..document import document
    from .stages import run_alone

    for option in unused_options(name):
        if given[option] != OPTIONS[option][1]:
            raise typer.BadParameter(
                f"{name} does not use it", param_hint=f"--{option.replace('_', '-')}"
            )
    request = RunRequest(
        given["preset"],
        given["seed"],
        given["suite"],
        given["refresh"],
        given["from_run"],
        given["sandbox"],
        overrides=read_overrides(
            with_notes(
                with_engine(
                    given["settings"],
                    given["engine"],
                    given["engine_url"],
                    colocated=given["colocated"],
                ),
                given["notes"],
            )
        ),
    )
    with document(given["json"]) as publish:
        made = run_alone(
            name,
            request,
            workers=given["workers"],
            prefect=not given["no_prefect"],
            processes=given["processes"],
        )
        publish(made)
    leave_incomplete(made)
