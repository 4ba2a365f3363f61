"""Run a stage once: find its inputs, reuse a finished run, resume an unfinished one."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..concurrency.file_lock import try_lock
from ..config.code_version import code_version, git_commit
from ..config.registry import find_stage, stage_names
from ..config.settings import Preset, preset_model
from ..store.claims import Claim, claimed_work, try_claim
from ..store.lineage import StageRequest, StageRun
from ..tracking.sinks.sink import MissingSinkError, check_sinks
from .context import StageContext
from .progress import format_seconds
from .recording import at_pipeline, recorded
from .stage_parameters import stage_parameters
from .turns import training_turn

if TYPE_CHECKING:
    from .session import RunSession

_LOADED_POLICIES = (
    "scripted.teacher",
    "models.nano",
    "loading",
    "rollouts.runner",
    "inference.vlm",
    "training.sft",
    "training.grpo.loop",
)
BUSY_SECONDS = 1.0
"""Time between two looks at work that another process does."""
FRESH = "fresh"
"""Key in a pipeline run's outputs: a token that keeps its stages from reusing older ones."""
INHERITED = "inherited"
"""Key in a pipeline run's outputs: stages whose finished runs it took over as they are."""


class StageError(RuntimeError):
    """A stage cannot run as requested; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ResolvedRun:
    """A resolved run: preset, parameters and seed.

    Attributes:
        name: Name of the preset, which run ids begin with.
        preset: Parameters, including the user's changes.
        seed: Random seed of every draw.
    """

    name: str
    preset: Preset
    seed: int = 0


def fresh_mark(stage: str) -> str:
    """Return the output key of a pipeline run that makes a stage differ from earlier ones."""
    return f"{FRESH} {stage}"


def resolved_run(pipeline: StageRun) -> ResolvedRun:
    """Return the resolved run that a pipeline run was begun with.

    Raises:
        StageError: It was begun with other settings of a stage than those that are installed.
    """
    try:
        model = preset_model().model_validate(pipeline.parameters)
        return ResolvedRun(pipeline.preset, model, pipeline.seed)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise StageError(
            f"{pipeline.id} was begun with settings that no installed stage has ({place}): "
            "install the package whose stage it used, or begin a new run"
        ) from error


def run_stage(session: RunSession, stage: str, pipeline: StageRun) -> StageRun:
    """Run a stage for a pipeline run, or return the finished run that did the same work.

    A stage that another process is running is waited for, and taken over if that process ends. An
    exclusive stage waits until no other one is running on this host.

    Raises:
        StageError: An input is missing.
        StageInterrupted: A stop was requested; the same call resumes the stage.
        ClaimLostError: Another process has taken over the stage, since this one was too slow.
    """
    with at_pipeline(session, pipeline):
        if stage in session.store.lineage.get(pipeline.id).outputs.get(INHERITED, ()):
            taken = find_input(session, pipeline, stage)
            session.progress.say(f"{stage}: taken over ({taken.id})")
            return taken
        request = _request_for(session, stage, pipeline)
        with at_work(session, request):
            same = session.store.lineage.find(stage=stage, key=request.key)
            preset = resolved_run(pipeline).preset
            finished = run_among(session, same, request, preset, parent=pipeline.id)
        _adopt(session, pipeline, finished)
        return finished


class _FinishedElsewhere(Exception):  # noqa: N818 - ends a wait
    """Another process has finished the work that this one waits for."""


@contextmanager
def at_work(session: RunSession, request: StageRequest) -> Generator[None]:
    """Hold the claim of a stage's work, and for an exclusive stage a training slot of this host.

    Neither is held, or waited for, where the work is finished.
    """
    has_said = False

    def is_finished() -> bool:
        same = session.store.lineage.find(stage=request.stage, key=request.key)
        return _find_finished(same) is not None

    def check() -> None:
        session.stop.check()
        if is_finished():
            raise _FinishedElsewhere

    while not is_finished():
        with ExitStack() as stack:
            if find_stage(request.stage).exclusive:
                turn = training_turn(
                    request.stage,
                    fallback=session.home.root / "locks",
                    say=session.progress.say,
                    check=check,
                )
                try:
                    stack.enter_context(turn)
                except _FinishedElsewhere:
                    break
            claim = try_claim(session.store.database, claimed_work(request.stage, request.key))
            if isinstance(claim, Claim):
                stack.enter_context(session.holding(claim))
                yield
                return
        if not has_said:
            session.progress.say(f"{request.stage}: waiting, {claim} is running it")
            has_said = True
        time.sleep(BUSY_SECONDS)
        session.stop.check()
    yield


def _request_for(session: RunSession, stage: str, pipeline: StageRun) -> StageRequest:
    """Return a pipeline run's request for a stage, with its inputs.

    A stage whose input lacks episodes is rerun once that input is complete.
    """
    found = {name: find_input(session, pipeline, name) for name in find_stage(stage).inputs}
    inputs = {name: run.id for name, run in found.items()}
    resolved = resolved_run(pipeline)
    parameters = stage_parameters(stage, resolved.preset)
    if lost := {name: run.lost for name, run in found.items() if run.lost}:
        parameters["lost_inputs"] = lost
    if fresh_mark(stage) in pipeline.outputs:
        parameters[FRESH] = pipeline.outputs[fresh_mark(stage)]
    return make_request(stage, resolved, parameters, inputs)


def unfinished_stages(
    session: RunSession, pipeline: StageRun, stages: Iterable[str] | None = None
) -> tuple[str, ...]:
    """Return the stages of which a pipeline run has no finished run that does what it asks now.

    A stage that was added, replaced or upgraded since is among them, and so is what reads it.

    Args:
        session: Session with the store.
        pipeline: The pipeline run.
        stages: Stages to look at, in order; None for all.
    """
    left: list[str] = []
    for stage in stage_names() if stages is None else stages:
        if stage in pipeline.outputs.get(INHERITED, ()):
            continue
        is_outdated = any(one in left for one in find_stage(stage).inputs)
        if is_outdated or not _has_finished(session, pipeline, stage):
            left.append(stage)
    return tuple(left)


def _has_finished(session: RunSession, pipeline: StageRun, stage: str) -> bool:
    try:
        key = _request_for(session, stage, pipeline).key
    except StageError:  # an input is missing
        return False
    same = session.store.lineage.find(stage=stage, key=key)
    return any(run.is_finished and run.id == pipeline.outputs.get(stage) for run in same)


def run_among(
    session: RunSession,
    same: Sequence[StageRun],
    request: StageRequest,
    preset: Preset,
    *,
    parent: str | None,
) -> StageRun:
    """Return a finished run of ``same``, resume an unfinished one, or begin a new one.

    Raises:
        StageError: The package of a tool that ``tracking.also`` names is not installed.
    """
    lineage = session.store.lineage
    finished = _find_finished(same)
    if finished is not None:
        session.progress.say(f"{request.stage}: already finished ({finished.id})")
        return finished
    try:
        check_sinks(preset.tracking.also)
    except MissingSinkError as error:
        raise StageError(str(error)) from error
    begun = next((run for run in same if not run.is_complete), None)
    run = begun or lineage.begin(request, parent=parent)
    with _in_use(session.home.stages / run.id):
        if begun is not None:
            session.progress.say(f"{request.stage}: resuming {run.id}")
        with recorded(session, run, preset.tracking) as results:
            results.append(find_stage(run.stage).run(_context(session, run, preset)))
    finished = lineage.get(run.id)
    took = format_seconds(finished.seconds)
    session.progress.say(f"{request.stage}: finished in {took} ({finished.id})")
    return finished


def load_code() -> None:
    """Import all modules of the stages, so that editing the source cannot change a running run."""
    for stage in stage_names():
        find_stage(stage)
    for name in _LOADED_POLICIES:
        import_module(f"...policies.{name}", __package__)


def find_input(session: RunSession, pipeline: StageRun, stage: str) -> StageRun:
    """Return the finished run of ``stage`` that a pipeline run has adopted, else the newest.

    Raises:
        StageError: No such run is finished yet.
    """
    lineage = session.store.lineage
    pipeline = lineage.get(pipeline.id)
    found = [run for run in lineage.find(stage=stage, parent=pipeline.id) if run.is_finished]
    if adopted := pipeline.outputs.get(stage):
        current = lineage.get(adopted)
        if current.is_finished:
            return current
        found.append(current)
    if not found:
        raise StageError(
            f"{pipeline.id} has no finished {stage}: run `codedance {command_of(stage)}` first"
        )
    return max(found, key=lambda run: run.ended_at or run.started_at)


def command_of(stage: str) -> str:
    """Return the name of a stage's command, which has hyphens for underscores.

    >>> command_of("my_stage")
    'my-stage'
    """
    return stage.replace("_", "-")


def make_request(
    stage: str, resolved: ResolvedRun, parameters: Mapping[str, Any], inputs: Mapping[str, Any]
) -> StageRequest:
    """Return the request for a stage run with the current code."""
    return StageRequest(
        stage, resolved.name, parameters, inputs, resolved.seed, code_version(), git_commit()
    )


def _context(session: RunSession, run: StageRun, preset: Preset) -> StageContext:
    return StageContext(
        run=run,
        preset=preset,
        folder=session.home.stages / run.id,
        store=session.store,
        tracker=session.tracker,
        progress=session.progress,
        sandbox=partial(session.sandbox, preset.sandbox),
        stop=session.stop,
        on_alarm=session.on_alarm,
        claim=session.claim,
    )


def _adopt(session: RunSession, pipeline: StageRun, run: StageRun) -> None:
    """Record a stage run in the row of its pipeline run, and have MLflow show it.

    A process that was killed may have finished the stage before MLflow was up to date.
    """
    session.tracker.touch(run.id)
    current = session.store.lineage.get(pipeline.id)
    outputs = {**current.outputs, run.stage: run.id}
    if current.is_finished and outputs == current.outputs:
        return  # nothing was done: the time of its end stays
    status = "finished" if current.is_finished else "running"
    session.store.lineage.mark(pipeline.id, status, outputs=outputs)


def _find_finished(same: Sequence[StageRun]) -> StageRun | None:
    return next((run for run in same if run.is_complete and _is_whole(run)), None)


def _is_whole(run: StageRun) -> bool:
    """Return whether the files that a finished run made still exist."""
    model = run.outputs.get("model")
    return model is None or Path(model).is_dir()


@contextmanager
def _in_use(folder: Path) -> Generator[None]:
    """Hold the lock that keeps ``store prune`` from removing a stage's folder.

    Whether a stage is run is decided by its claim: a process that lost it may still hold the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with try_lock(folder / ".lock"):
        yield
