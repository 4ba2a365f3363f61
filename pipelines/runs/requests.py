"""Resolution of run requests (preset, seed, task file, source run) to pipeline runs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..config.flows_file import load_preset
from ..config.presets import with_overrides
from ..config.registry import earlier_stages, find_stage, stage_names
from ..config.yaml_file import SettingsError
from ..store.claims import claimed, claimed_work
from ..store.lineage import PIPELINE, StageRequest, StageRun
from .overrides import (
    OVERRIDES,
    joined_overrides,
    refuse_unread,
    resolve_suite,
    with_flat_overrides,
    with_made,
)
from .run_page import opening, run_tags
from .runner import (
    FRESH,
    INHERITED,
    ResolvedRun,
    StageError,
    command_of,
    find_input,
    fresh_mark,
    make_request,
    unfinished_stages,
)
from .used_sandbox import recorded_sandbox

if TYPE_CHECKING:
    from .session import RunSession

FLOW_RUNS = "flow runs"
"""In a pipeline run's outputs: ids of the flow runs that began or resumed it."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A request for a run; None takes a value from the source run, or else the default.

    Attributes:
        preset: Name of a preset in flows.yaml.
        seed: Random seed of every draw.
        suite: Suite, some of its families (``nano:count,bars``), or a file of the user's own tasks
            (``.jsonl``) or families (``.py``).
        fresh: Whether to rerun stages even where a finished result matches.
        from_run: Run whose results are the inputs.
        sandbox: Sandbox backend for model code.
        token: Id of the flow run that asks. The same one again (Prefect retries it) resumes the
            run that it began, as that was resolved. None for a command.
        overrides: Values over the preset's, by their place: ``{"grpo.steps": 300}``.
    """

    preset: str | None = None
    seed: int | None = None
    suite: str | None = None
    fresh: bool = False
    from_run: str | None = None
    sandbox: str | None = None
    token: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict[str, Any])


def open_pipeline(
    session: RunSession, run_request: RunRequest, *, stage: str | None = None
) -> StageRun:
    """Return the pipeline run for a request: one with the same parameters, or a new one.

    Args:
        session: Session with the store.
        run_request: The request.
        stage: The only stage to run; None for all stages.

    Raises:
        SettingsError: flows.yaml is wrong or has no such preset, or an override is wrong or would
            be ignored.
        StageError: The task file is missing, ``from_run`` belongs to no pipeline run, or ``stage``
            has no finished inputs.
    """
    if begun := _begun_by(session, run_request.token):
        return reopen_pipeline(session, begun.id)
    run_request = with_flat_overrides(run_request)
    source = _source(session, run_request, stage)
    _refuse_other_tasks(run_request, source, stage)
    resolved, overrides = _resolve(session, run_request, source, stage)
    request = make_request(PIPELINE, resolved, resolved.preset.model_dump(mode="json"), {})
    work = f"the beginning of {claimed_work(PIPELINE, request.key)}"
    with claimed(session.store.database, work, check=session.stop.check):
        return _find_or_begin(session, run_request, request, overrides, source=source, stage=stage)


def _find_or_begin(
    session: RunSession,
    run_request: RunRequest,
    request: StageRequest,
    overrides: Mapping[str, Any],
    *,
    source: StageRun | None,
    stage: str | None,
) -> StageRun:
    """Return the pipeline run for a request, as one step: no other process does so meanwhile."""
    found = session.store.lineage.find(stage=PIPELINE, key=request.key)
    same = [run for run in found if run.preset == request.preset]
    names = [stage] if stage else list(stage_names())
    token = None
    if run_request.fresh:
        token = run_request.token or _begun_token(session, source, same, names)
    run, outputs = _same_run(source, same, stage, token, is_fresh=run_request.fresh), {}
    if run is None:
        outputs = _inherited(session, source or _finished_with(session, request, stage), stage)
        _check_inputs(outputs, stage)
        run = session.store.lineage.begin(request)
    outputs = _taken_over(outputs, run, names)
    if overrides:
        outputs[OVERRIDES] = json.loads(json.dumps(overrides, default=str))  # dates, paths
    if run_request.fresh:
        token = token or secrets.token_hex(4)
        outputs |= {fresh_mark(name): token for name in names}
    asked = replace(run, outputs=outputs)
    is_same = run.is_complete and _but_inherited(outputs) == _but_inherited(run.outputs)
    if is_same and not unfinished_stages(session, asked, names):
        return run
    if run_request.token:
        outputs[FLOW_RUNS] = [*run.outputs.get(FLOW_RUNS, []), run_request.token]
    return _begin(session, run, outputs)


def _same_run(
    source: StageRun | None,
    same: Sequence[StageRun],
    stage: str | None,
    token: str | None,
    *,
    is_fresh: bool,
) -> StageRun | None:
    """Return the pipeline run among ``same`` that a request continues; None for a new one."""
    if source is not None and (named := [run for run in same if run.id == source.id]):
        return named[0]  # as it is now
    if begun := [run for run in same if token and token in run.outputs.values()]:
        return begun[0]
    may_reuse = source is None and (stage is not None or not is_fresh)
    return same[0] if same and may_reuse else None


def _taken_over(
    inherited: Mapping[str, str], run: StageRun, names: Sequence[str]
) -> dict[str, Any]:
    """Return a pipeline run's outputs with stage runs of another, but for stages to run now."""
    outputs: dict[str, Any] = {**inherited, **run.outputs}
    before = [*inherited, *run.outputs.get(INHERITED, [])]
    left = [stage for stage in dict.fromkeys(before) if stage not in names]
    return _but_inherited(outputs) | ({INHERITED: left} if left else {})


def _but_inherited(outputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in outputs.items() if name != INHERITED}


def reopen_pipeline(session: RunSession, run_id: str) -> StageRun:
    """Return a pipeline run to continue, with the parameters that it was resolved to.

    Raises:
        StageError: The run is not a pipeline run.
    """
    run = session.store.lineage.get(run_id)
    if run.stage != PIPELINE:
        raise StageError(f"{run.id} is a run of {run.stage}: name the pipeline run it belongs to")
    if run.is_complete and not unfinished_stages(session, run):
        return run
    return _begin(session, run, run.outputs)


def _begun_by(session: RunSession, flow_run: str | None) -> StageRun | None:
    """Return the pipeline run that a flow run began or resumed before; None without one."""
    if flow_run is None:
        return None
    runs = session.store.lineage.find(stage=PIPELINE)
    return next((run for run in runs if flow_run in run.outputs.get(FLOW_RUNS, ())), None)


def _begin(session: RunSession, run: StageRun, outputs: Mapping[str, Any]) -> StageRun:
    """Mark a pipeline run as running, in the store and in MLflow."""
    session.store.lineage.mark(run.id, "running", outputs=outputs)
    session.tracker.describe(run.id, opening(run), tags=run_tags(run, session.store))
    return session.store.lineage.get(run.id)


def _refuse_other_tasks(
    run_request: RunRequest, source: StageRun | None, stage: str | None
) -> None:
    """Refuse another suite than the source's for a stage that takes the curation's tasks."""
    if source is None or run_request.suite is None or not stage or not earlier_stages(stage):
        return
    found = source.parameters["suite"]
    if resolve_suite(run_request.suite) != found:
        raise SettingsError(
            f"suite {run_request.suite}: {stage} takes the tasks of the curation as they are, and "
            f"{source.id} is of {found}: leave it out, or run the curation with it first"
        )


def _begun_token(
    session: RunSession, source: StageRun | None, same: Sequence[StageRun], names: Sequence[str]
) -> str | None:
    """Return the token of an unfinished fresh run with the same parameters; None without one.

    With it, a command with ``--refresh`` that was stopped resumes its own run.
    """
    for run in same if source is None else [one for one in same if one.id == source.id]:
        tokens = {str(run.outputs.get(fresh_mark(name), "")) for name in names}
        token = tokens.pop()
        made = session.store.lineage.find(stage=names[-1], parent=run.id)
        if (
            token
            and not tokens
            and not any(one.is_complete and one.parameters.get(FRESH) == token for one in made)
        ):
            return token
    return None


def find_pipeline(session: RunSession, name: str) -> StageRun:
    """Return a pipeline run by its own id, ``latest``, or the id of one of its stage runs.

    Raises:
        StageError: The run belongs to no pipeline run.
    """
    run = session.store.lineage.get(name)
    if name == "latest" and run.stage != PIPELINE:
        raise StageError("there is no pipeline run yet; `codedance run` starts one")
    if run.stage != PIPELINE and run.parent is not None:
        run = session.store.lineage.get(run.parent)
    if run.stage != PIPELINE:
        raise StageError(f"{name} does not belong to a pipeline run")
    return run


def _source(session: RunSession, run_request: RunRequest, stage: str | None) -> StageRun | None:
    """Return the source run: the named one; for a single stage, else the newest.

    A run that has not finished the earlier stages yet (a schedule started it a minute ago) is
    skipped for an older one that has, if there is any.
    """
    if run_request.from_run is not None:
        return find_pipeline(session, run_request.from_run)
    if (
        stage is None
        or not find_stage(stage).inputs
        or run_request.preset
        or run_request.suite
        or run_request.seed is not None
    ):
        return None
    newest = session.store.lineage.find(stage=PIPELINE)
    ready = (run for run in newest if _has_inputs(session, run, stage))
    return next(ready, newest[0] if newest else None)


def _has_inputs(session: RunSession, run: StageRun, stage: str) -> bool:
    """Return whether a pipeline run has finished all inputs of ``stage``."""
    try:
        for name in find_stage(stage).inputs:
            find_input(session, run, name)
    except StageError:
        return False
    return True


def _resolve(
    session: RunSession, run_request: RunRequest, source: StageRun | None, stage: str | None
) -> tuple[ResolvedRun, dict[str, Any]]:
    """Return what a request resolves to, and the overrides in it, which are recorded."""
    name = run_request.preset or (source.preset if source is not None else "quick")
    seed = run_request.seed
    if seed is None:
        seed = source.seed if source is not None else 0
    settings = load_preset(name)
    overrides = joined_overrides(session, settings, run_request, source)
    if source is not None:
        settings = settings.model_copy(update={"suite": source.parameters["suite"]})
        if run_request.from_run is not None:
            settings = settings.model_copy(update={"sandbox": recorded_sandbox(source)})
        else:  # no run was named: flows.yaml as it is now, with the same backend
            settings = settings.with_backend(recorded_sandbox(source).backend)
    settings = with_overrides(settings, overrides)
    refuse_unread(run_request.overrides, settings, stage)
    suite = resolve_suite(run_request.suite or settings.suite)
    settings = settings.model_copy(update={"suite": suite})
    if "suite" in overrides:
        overrides["suite"] = suite
    if run_request.sandbox is not None:
        settings = settings.with_backend(run_request.sandbox)
    inherited = _inherited(session, source, stage)
    return ResolvedRun(name, with_made(session, settings, inherited), seed), overrides


def _finished_with(
    session: RunSession, request: StageRequest, stage: str | None
) -> StageRun | None:
    """Return the newest pipeline run whose stages before ``stage`` are what a request asks for."""
    if stage is None or not find_stage(stage).inputs:
        return None
    earlier = earlier_stages(stage)
    runs = session.store.lineage.find(stage=PIPELINE, code_version=request.code_version)
    for run in (one for one in runs if all(name in one.outputs for name in earlier)):
        outputs = _but_inherited(run.outputs)
        asked = replace(run, parameters=request.parameters, seed=request.seed, outputs=outputs)
        if not unfinished_stages(session, asked, earlier):
            return run
    return None


def _inherited(session: RunSession, source: StageRun | None, stage: str | None) -> dict[str, str]:
    """Return the finished stage runs before ``stage`` of the source run, by stage."""
    if source is None or stage is None:
        return {}
    earlier = earlier_stages(stage)
    fresh = session.store.lineage.get(source.id)
    return {name: fresh.outputs[name] for name in earlier if name in fresh.outputs}


def _check_inputs(inherited: Mapping[str, str], stage: str | None) -> None:
    """Refuse to begin a pipeline run for one stage whose inputs are missing."""
    missing = [one for one in find_stage(stage).inputs if one not in inherited] if stage else []
    if missing:
        command = command_of(missing[0])
        raise StageError(
            f"{stage} needs a finished {missing[0]}, and there is none: run `codedance {command}` "
            "first, or name a run that has one with --from RUN"
        )
