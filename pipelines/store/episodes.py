"""The figures of stored trajectories, without text and images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ...envs.types import Difficulty, Ending
from .schema import TaskRow, TrajectoryRow


@dataclass(frozen=True, slots=True)
class Episode:
    """The figures of a stored trajectory that statistics need, without text and images."""

    id: int
    phase: str
    step: int
    sample: int
    task_key: str
    task_id: str
    family: str
    difficulty: Difficulty
    accuracy: float | None
    ending: Ending
    answer: str | None
    true_answer: str
    tool_calls: int
    tool_successes: int
    sessions_lost: int = 0

    @property
    def is_valid(self) -> bool:
        """False after an infrastructure failure: the episode is masked and counted separately."""
        return self.ending is not Ending.INFRASTRUCTURE


def read_episodes(session: Session, stage_run: str, phase: str | None) -> list[Episode]:
    """Return the figures of a stage run's trajectories, in the order they were stored."""
    t = TrajectoryRow
    query = (
        select(t.id, t.phase, t.step, t.sample, t.task_key, TaskRow.task_id, TaskRow.family)
        .add_columns(TaskRow.difficulty, t.accuracy, t.ending, t.answer, TaskRow.answer)
        .add_columns(t.tool_calls, t.tool_successes, t.sessions_lost)
        .join(TaskRow, TaskRow.key == t.task_key)
        .where(t.stage_run == stage_run)
        .order_by(t.id)
    )
    if phase is not None:
        query = query.where(t.phase == phase)
    return [_read_episode(row) for row in session.execute(query).tuples()]


def read_session_losses(session: Session, stage_run: str) -> dict[tuple[str, str], int]:
    """Return the number of sessions lost while they ran code, by policy and task id."""
    t = TrajectoryRow
    query = (
        select(t.policy_id, TaskRow.task_id, func.sum(t.sessions_lost))
        .join(TaskRow, TaskRow.key == t.task_key)
        .where(t.stage_run == stage_run, t.sessions_lost > 0)
        .group_by(t.policy_id, TaskRow.task_id)
    )
    return {(policy, task): lost or 0 for policy, task, lost in session.execute(query).tuples()}


def _read_episode(row: tuple[Any, ...]) -> Episode:
    return Episode(
        id=row[0],
        phase=row[1],
        step=row[2],
        sample=row[3],
        task_key=row[4],
        task_id=row[5],
        family=row[6],
        difficulty=Difficulty(row[7]),
        accuracy=row[8],
        ending=Ending(row[9]),
        answer=row[10],
        true_answer=row[11],
        tool_calls=row[12],
        tool_successes=row[13],
        sessions_lost=row[14] or 0,
    )
