"""From what the user says (preset, seed, task file, run to go on from) to a pipeline run."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...envs import load_suite
from ..config.flows_file import load_preset
from ..store.lineage import PIPELINE, STAGES, StageRun
from .run_page import opening, run_tags
from .runner import FRESH, INPUTS, ResolvedRun, StageError, find_input, fresh_mark, make_request
from .used_sandbox import recorded_sandbox

if TYPE_CHECKING:
    from .session import RunSession


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for; None leaves it to the run to go on from, or to the default.

    Attributes:
        preset: Name of a preset in flows.yaml.
        seed: Of every draw.
        suite: Suite, some of its families (``nano:count,bars``), or a file of the user's own tasks
            (``.jsonl``) or families (``.py``).
        fresh: Do it again even where a finished result fits.
        from_run: Run whose results are the inputs.
        sandbox: Backend that model code runs in.
        token: What a fresh run is known by, so that the same wish uttered again (a flow run that
            Prefect retries) goes on with it; None for a new one each time.
    """

    preset: str | None = None
    seed: int | None = None
    suite: str | None = None
    fresh: bool = False
    from_run: str | None = None
    sandbox: str | None = None
    token: str | None = None


def open_pipeline(
    session: RunSession, run_request: RunRequest, *, stage: str | None = None
) -> StageRun:
    """Return the pipeline run to work for: one with the same parameters, or a new one.

    Args:
        session: Where the store is.
        run_request: What the user asked for.
        stage: The stage that is to be run alone; None for all of them.

    Raises:
        SettingsError: flows.yaml is wrong or has no such preset.
        StageError: The task file is missing, ``from_run`` is no pipeline run's, or there is nothing
            that ``stage`` could go on from.
    """
    source = _source(session, run_request, stage)
    resolved = _resolve(run_request, source)
    request = make_request(PIPELINE, resolved, resolved.preset.model_dump(), {})
    same = session.store.lineage.find(stage=PIPELINE, key=request.key)
    names = [stage] if stage else list(STAGES)
    token = run_request.token or (
        _begun_token(session, source, same, names) if run_request.fresh else None
    )
    if source is not None and source.key == request.key:
        run = source
    elif begun := [run for run in same if token and token in run.outputs.values()]:
        run = begun[0]
    elif same and source is None and (stage is not None or not run_request.fresh):
        run = same[0]
    else:
        _check_inputs(_inherited(session, source, stage), stage)
        run = session.store.lineage.begin(request)
    outputs = {**_inherited(session, source, stage), **run.outputs}
    if run_request.fresh:
        token = token or secrets.token_hex(4)
        outputs |= {fresh_mark(name): token for name in names}
    if run.is_complete and outputs == run.outputs:
        return run
    session.store.lineage.mark(run.id, "running", outputs=outputs)
    session.tracker.begin(run, tags=run_tags(run, session.store), description=opening(run))
    return session.store.lineage.get(run.id)


def _begun_token(
    session: RunSession, source: StageRun | None, same: Sequence[StageRun], names: Sequence[str]
) -> str | None:
    """Return the token of the same fresh run that was begun and not finished; None for no such.

    So the command with ``--refresh`` goes on with what it began when it was stopped.
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
        StageError: It belongs to none.
    """
    run = session.store.lineage.get(name)
    if name == "latest" and run.stage != PIPELINE:
        raise StageError("there is no pipeline run yet; `codedance run` makes one")
    if run.stage != PIPELINE and run.parent is not None:
        run = session.store.lineage.get(run.parent)
    if run.stage != PIPELINE:
        raise StageError(f"{name} does not belong to a pipeline run")
    return run


def _source(session: RunSession, run_request: RunRequest, stage: str | None) -> StageRun | None:
    """Return the run to go on from: the named one; for a stage alone, else the newest.

    One that is still at the stages before (a schedule began it a minute ago) is passed over for an
    older one that has them, if there is any.
    """
    if run_request.from_run is not None:
        return find_pipeline(session, run_request.from_run)
    if (
        stage in (None, "curate")
        or run_request.preset
        or run_request.suite
        or run_request.seed is not None
    ):
        return None
    newest = session.store.lineage.find(stage=PIPELINE)
    ready = (run for run in newest if _has_inputs(session, run, stage))
    return next(ready, newest[0] if newest else None)


def _has_inputs(session: RunSession, run: StageRun, stage: str) -> bool:
    """Whether a pipeline run has finished all that ``stage`` reads."""
    try:
        for name in INPUTS[stage]:
            find_input(session, run, name)
    except StageError:
        return False
    return True


def _resolve(run_request: RunRequest, source: StageRun | None) -> ResolvedRun:
    name = run_request.preset or (source.preset if source is not None else "quick")
    seed = (
        run_request.seed
        if run_request.seed is not None
        else (source.seed if source is not None else 0)
    )
    settings = load_preset(name)
    suite = run_request.suite or (
        source.parameters["suite"] if source is not None else settings.suite
    )
    settings = settings.model_copy(update={"suite": resolve_suite(suite)})
    if run_request.sandbox is not None:
        settings = settings.with_backend(run_request.sandbox)
    elif source is not None and run_request.from_run is not None:
        settings = settings.model_copy(update={"sandbox": recorded_sandbox(source)})
    elif source is not None:  # no run was named: what flows.yaml says now, behind no other walls
        settings = settings.with_backend(recorded_sandbox(source).backend)
    return ResolvedRun(name, settings, seed)


def _inherited(session: RunSession, source: StageRun | None, stage: str | None) -> dict[str, str]:
    """Return the finished stages before ``stage`` of the run to go on from."""
    if source is None or stage is None:
        return {}
    earlier = STAGES[: STAGES.index(stage)]
    fresh = session.store.lineage.get(source.id)
    return {name: fresh.outputs[name] for name in earlier if name in fresh.outputs}


def _check_inputs(inherited: Mapping[str, str], stage: str | None) -> None:
    """Refuse to begin a pipeline run that could not do the one stage it is for."""
    missing = [name for name in INPUTS[stage] if name not in inherited] if stage else []
    if missing:
        raise StageError(
            f"{stage} needs a finished {missing[0]}, and there is none to go on from: "
            f"`codedance {missing[0]}` first, or name a run that has one with --from RUN"
        )


def resolve_suite(name: str) -> str:
    """Return a suite's name as it is, a file's with its whole path, once it can be read.

    Raises:
        StageError: There is no such file.
        SuiteError: There is no such suite, or a line of the file is no task.
    """
    if name.endswith((".jsonl", ".py")):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise StageError(f"there is no task file {path}")
        name = str(path)
    load_suite(name, split="test")
    return name
