"""What a stage is handed: its row in the lineage, its folder, and the places it writes to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...policies.training.grpo.alarms import Alarm
from ...sandbox.types import Sandbox
from ..config.settings import Preset
from ..store.lineage import StageRun
from ..store.store import Store
from ..tracking.tracker import Tracker
from .progress import Progress

OnAlarm = Callable[[StageRun, Alarm], None]
"""Told which stage run raised which alarm."""


def ignore_alarm(run: StageRun, alarm: Alarm) -> None:
    """Do nothing: the log, the stage's folder and MLflow have it."""


class StageInterrupted(RuntimeError):  # noqa: N818 - nothing failed: the user asked for it
    """The user asked to stop; what was done so far is kept."""


class Stop:
    """The wish to stop, which a signal may utter and every stage heeds at its next safe point."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def request(self) -> None:
        """Ask to stop."""
        self._event.set()

    def is_requested(self) -> bool:
        """Whether someone asked to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Stop here if someone asked.

        Raises:
            StageInterrupted: Someone did.
        """
        if self._event.is_set():
            raise StageInterrupted("stopped on request")


@dataclass(frozen=True, slots=True)
class StageContext:
    """Everything that a stage needs and does not decide.

    Attributes:
        run: Its row; `StageRun.inputs` says whose outputs it reads.
        preset: All parameters of the run.
        folder: Its own folder: state, checkpoint, cards.
        store: The trajectory store.
        tracker: MLflow, or the spool in its stead.
        progress: Where progress is shown.
        sandbox: Opens the sandbox on the first call, and gives the same one later.
        stop: Asked at every safe point.
        on_alarm: Told of each alarm at once, with the stage's run, besides the usual places.
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

    @property
    def seed(self) -> int:
        """Of every draw in the stage."""
        return self.run.seed

    def input(self, stage: str) -> StageRun:
        """Return the finished stage run whose outputs this one reads."""
        return self.store.lineage.get(self.run.inputs[stage])


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage made.

    Attributes:
        outputs: Small values for the lineage: paths, counts, figures.
        artifacts: Files and folders that MLflow gets a copy of.
    """

    outputs: Mapping[str, Any]
    artifacts: tuple[Path, ...] = field(default=())
