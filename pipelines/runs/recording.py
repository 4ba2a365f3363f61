"""How a stage run and a pipeline run end, recorded in the store, in the folder and on the page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.server_settings import TrackingSettings
from ..store.claims import ClaimLostError, has_workers, working_for
from ..store.connection.errors import StoreError, StoreFullError, is_disk_full
from ..store.lineage import SECONDS, StageRun, Status
from ..tracking.sinks.feed import fed
from ..tracking.sinks.sending import sink_run
from ..tracking.system_metrics import metered
from .context import StageInterrupted, StageResult
from .run_page import closing, opening, run_tags

if TYPE_CHECKING:
    from .session import RunSession


@contextmanager
def at_pipeline(session: RunSession, pipeline: StageRun) -> Generator[None]:
    """Work for a pipeline run, which is marked as running until the last process leaves it.

    Within another such context of the session, it changes nothing.
    """
    if pipeline.id in session.pipelines:
        yield
        return
    lineage = session.store.lineage
    try:
        with working_for(session.store.database, pipeline.id):
            if not lineage.get(pipeline.id).is_finished:
                lineage.mark(pipeline.id, "running")
            session.pipelines.add(pipeline.id)
            yield
    finally:
        session.pipelines.discard(pipeline.id)
        leave(session, pipeline)


def leave(
    session: RunSession,
    pipeline: StageRun,
    status: Status = "interrupted",
    error: BaseException | None = None,
) -> None:
    """Mark a pipeline run, unless it is finished or another process works for it."""
    database = session.store.database
    with suppress(StoreError):  # a full store was reported already
        session.store.lineage.mark(
            pipeline.id,
            status,
            error=None if error is None else str(error),
            unless=lambda transaction: has_workers(database, transaction, pipeline.id),
        )
    session.tracker.touch(pipeline.id)


@contextmanager
def recorded(
    session: RunSession, run: StageRun, tracking: TrackingSettings
) -> Generator[list[StageResult]]:
    """Record how a stage ends, in the store and in its folder.

    Args:
        session: Session with the store.
        run: Run of the stage.
        tracking: The tools that show its metrics besides MLflow.

    Yields:
        A list for the result of the stage, which the body adds to it.
    """
    lineage, tracker = session.store.lineage, session.tracker
    folder = session.home.stages / run.id
    lineage.mark(run.id, "running")
    tracker.describe(run.id, opening(run), tags=run_tags(run, session.store))
    begun = time.monotonic()
    results: list[StageResult] = []

    def worked() -> dict[str, float]:
        return {SECONDS: round(run.seconds + time.monotonic() - begun, 1)}

    try:
        session.stop.check()
        with metered(tracker, run.id, folder), _shown_elsewhere(session, run, tracking):
            yield results
        (result,) = results
        _seal(session, run, result)
        outputs = {**result.outputs, **worked()}
        _show_result(session, replace(run, status="finished", outputs=outputs), result)
        tracker.writer.complete()
    except ClaimLostError:
        raise  # the run is another process's: nothing is recorded here
    except (StageInterrupted, KeyboardInterrupt):
        lineage.mark(run.id, "interrupted", outputs=worked())
        raise
    except BaseException as error:
        _mark_failed(session, run, error)
        if is_disk_full(error) and not isinstance(error, StoreError):
            raise StoreFullError(folder) from error
        raise
    lineage.mark(run.id, "finished", outputs=outputs)
    tracker.touch(run.id)
    _forget_state(folder)


def _shown_elsewhere(
    session: RunSession, run: StageRun, tracking: TrackingSettings
) -> AbstractContextManager[None]:
    """Return the context in which other tools than MLflow are fed with the run's metrics."""
    return fed(
        tracking.also,
        sink_run(run, tracking.project, session.home.root),
        session.home.stages / run.id,
        say=session.progress.say,
        guard=None if session.claim is None else session.claim.check,
        stopped_by=(StageInterrupted, KeyboardInterrupt),
    )


def _seal(session: RunSession, run: StageRun, result: StageResult) -> None:
    """Store the digests of the stage's results, which ``store verify`` checks later."""
    model = result.outputs.get("model")
    session.store.seal_stage(run.id, None if model is None else Path(str(model)))


def _show_result(session: RunSession, run: StageRun, result: StageResult) -> None:
    """Complete a run's page, before the run is marked: the page of a finished run is complete."""
    folder = session.home.stages / run.id
    for path in result.artifacts:
        session.tracker.artifact(run.id, path)
    text = closing(session.store, run, folder)
    session.tracker.describe(run.id, text, tags=run_tags(run, session.store))


def _mark_failed(session: RunSession, run: StageRun, error: BaseException) -> None:
    """Record the failure; a full store cannot, which must not hide the error."""
    try:
        session.store.lineage.mark(run.id, "failed", error=f"{type(error).__name__}: {error}")
    except ClaimLostError as lost:
        raise lost from error  # the run is another process's
    except StoreError as second:
        session.progress.say(f"{run.id} failed, and the store could not record it: {second}")


def _forget_state(folder: Path) -> None:
    """Remove the resumable state of a stage that is marked as finished; the result stays."""
    shutil.rmtree(folder / "state", ignore_errors=True)
