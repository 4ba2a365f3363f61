"""The context of a stage: its row in the lineage, its folder and its outputs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...policies.training.grpo.alarms import Alarm
from ...sandbox.types import Sandbox
from ..config.settings import Preset
from ..store.claims import Claim
from ..store.lineage import StageRun
from ..store.store import Store
from ..tracking.tracker import Tracker
from .progress import Progress

OnAlarm = Callable[[StageRun, Alarm], None]
"""Callback for alarms, called with the stage run and the alarm."""


def ignore_alarm(run: StageRun, alarm: Alarm) -> None:
    """Do nothing: the log, the stage's folder and MLflow record the alarm."""


class StageInterrupted(RuntimeError):  # noqa: N818 - nothing failed: the user asked for it
    """The user requested a stop; completed work is kept."""


class Stop:
    """A stop request, set by a signal and checked by every stage at its next safe point."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def request(self) -> None:
        """Request a stop."""
        self._event.set()

    def is_requested(self) -> bool:
        """Return whether a stop was requested."""
        return self._event.is_set()

    def check(self) -> None:
        """Interrupt the stage if a stop was requested.

        Raises:
            StageInterrupted: A stop was requested.
        """
        if self._event.is_set():
            raise StageInterrupted("stopped on request")


@dataclass(frozen=True, slots=True)
class StageContext:
    """Everything that the runner provides to a stage.

    Attributes:
        run: The stage's row; `StageRun.inputs` names the runs whose outputs it reads.
        preset: All parameters of the run.
        folder: The stage's own folder: state, checkpoint, cards.
        store: The trajectory store.
        tracker: Tracker of the run's metrics and artifacts.
        progress: Display of the progress.
        sandbox: Function that opens the sandbox on the first call and returns the same one later.
        stop: Stop request, checked at every safe point.
        on_alarm: Called with the stage run and each alarm at once, besides the usual records.
        claim: Claim of the stage's work; None where nobody else can do it (tests).
    """

    run: StageRun
    preset: Preset
    folder: Path
    store: Store
    tracker: Tracker
    progress: Progress
    sandbox: Callable[[], Sandbox]
    stop: Stop
    on_alarm: OnAlarm = ignore_alarm
    claim: Claim | None = None

    def check(self) -> None:
        """Make sure that the stage may continue, before it writes a file.

        Raises:
            StageInterrupted: A stop was requested.
            ClaimLostError: Another process has taken over the stage.
        """
        self.check_claim()
        self.stop.check()

    def check_claim(self) -> None:
        """Make sure that the stage is still this process's.

        Raises:
            ClaimLostError: Another process has taken over the stage.
        """
        if self.claim is not None:
            self.claim.check()

    def check_savable(self) -> None:
        """Make sure that a state may be saved: the stage is this process's, its lines are written.

        A state that is newer than the metrics on disk would lose them if the process died.

        Raises:
            ClaimLostError: Another process has taken over the stage.
            OSError: No space is left for lines that wait.
        """
        self.check_claim()
        self.tracker.writer.complete()

    def should_stop(self) -> bool:
        """Return whether a stop was requested, for trainers, which save their state first.

        Raises:
            ClaimLostError: Another process has taken over the stage; nothing may be saved.
        """
        self.check_claim()
        return self.stop.is_requested()

    @property
    def seed(self) -> int:
        """Random seed of every draw in the stage."""
        return self.run.seed

    @property
    def settings(self) -> Any:  # noqa: ANN401 - the model that the stage declares
        """The stage's own section of the preset; None where it declares no settings."""
        return getattr(self.preset, self.run.stage, None)

    def input(self, stage: str) -> StageRun:
        """Return the finished stage run whose outputs this one reads.

        Raises:
            LookupError: The stage does not declare it as an input.
        """
        if stage not in self.run.inputs:
            raise LookupError(
                f"the stage {self.run.stage!r} reads {stage!r} without declaring it: add it to the "
                "inputs of @stage"
            )
        return self.store.lineage.get(self.run.inputs[stage])


@dataclass(frozen=True, slots=True)
class StageResult:
    """The result of a stage.

    Attributes:
        outputs: Small values for the lineage: paths, counts, figures.
        artifacts: Files and folders that are copied to MLflow.
    """

    outputs: Mapping[str, Any]
    artifacts: tuple[Path, ...] = field(default=())
