"""Rescoring: grade stored episodes again with the current graders; no policy, no sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ...envs.grading import grade
from ...envs.types import Task
from ..config.code_version import code_version
from ..store.episodes import Episode
from ..store.lineage import PIPELINE, StageRun

if TYPE_CHECKING:
    from .session import RunSession

PLAYED = "graded when played"
"""Name of the scoring with the verdicts from before the first rescoring."""


@dataclass(frozen=True, slots=True)
class Change:
    """The changes that a rescoring made in one stage run.

    Attributes:
        stage_run: Id of the stage run.
        count: Number of episodes graded.
        changed: Number of episodes whose verdict changed.
        scoring: Name under which the new verdicts are stored, besides all earlier ones.
        example: Number of the first changed trajectory; None where none changed.
    """

    stage_run: str
    count: int
    changed: int
    scoring: str
    example: int | None = None


def rescore_run(session: RunSession, run: StageRun) -> Iterator[Change]:
    """Grade every episode of a run again: all stages of a pipeline, or a single evaluation.

    The new verdicts are stored besides all earlier ones, under a name with the time and the code
    version; reports use them from then on. `PLAYED` names the original verdicts.

    Yields:
        The changes in each stage run that has episodes.
    """
    scoring = f"graded {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f} UTC, code {code_version()[:12]}"
    for name in run.stage_runs.values() if run.stage == PIPELINE else [run.id]:
        if session.store.episodes(name):
            yield _rescore_stage(session, name, scoring)


def _rescore_stage(session: RunSession, run_id: str, scoring: str) -> Change:
    store = session.store
    episodes = [e for e in store.episodes(run_id) if e.accuracy is not None]
    tasks = store.tasks(list({e.task_key for e in episodes}), with_images=False)
    verdicts: dict[int, float] = {}
    with session.progress.bar("rescore", len(episodes)) as bar:
        for number, episode in enumerate(episodes, 1):
            session.stop.check()
            verdicts[episode.id] = _verdict(episode, tasks)
            if number % 200 == 0 or number == len(episodes):
                bar.reach(number)
    changed = [e for e in episodes if verdicts[e.id] != e.accuracy]
    known = store.scores(run_id, scoring=PLAYED)
    first = {e.id: {"accuracy": e.accuracy} for e in episodes if e.id not in known}
    store.add_scores(PLAYED, first)
    store.add_scores(scoring, {n: {"accuracy": value} for n, value in verdicts.items()})
    store.set_accuracy({e.id: verdicts[e.id] for e in changed})
    example = changed[0].id if changed else None
    return Change(run_id, len(episodes), len(changed), scoring, example)


def _verdict(episode: Episode, tasks: Mapping[str, Task]) -> float:
    task = tasks[episode.task_key]
    return grade(task, episode.answer) if episode.answer is not None else 0.0
