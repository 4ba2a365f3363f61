"""``codedance run`` and the single training stages."""

from __future__ import annotations

from ..exit_codes import leave_incomplete
from ..options import (
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
)


def run(  # noqa: PLR0913 - the options of the command
    preset: Preset = "quick",
    seed: Seed = 0,
    suite: Suite = None,
    refresh: Refresh = False,
    workers: Workers = None,
    processes: Processes = 1,
    sandbox: SandboxName = None,
    settings: Set = None,
    experiment: Experiment = None,
    json: Json = False,
    no_prefect: NoPrefect = False,
) -> None:
    """Curate, cold start, reinforce, evaluate, report: the whole pipeline in one command.

    It can be interrupted at any time: the same command resumes it.
    """
    from ...config.presets import read_overrides
    from ...runs.requests import RunRequest
    from ..document import document
    from .stages import run_pipeline

    run_request = RunRequest(
        preset or "quick",
        seed or 0,
        suite,
        refresh,
        sandbox=sandbox,
        overrides=read_overrides(settings),
    )
    with document(json) as publish:
        made = run_pipeline(
            run_request, workers=workers, prefect=not no_prefect, processes=processes
        )
        publish(made)
    leave_incomplete(made)
