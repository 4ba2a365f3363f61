"""The code of stored trajectories, without images, for the emergence report."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ...sandbox import Outcome
from .schema import HANDLED, ExecutionRow, TaskRow, TrajectoryRow, TurnRow


@dataclass(frozen=True, slots=True)
class Program:
    """The code blocks of one trajectory; none where it answered without a tool.

    Attributes:
        trajectory: Id of the trajectory.
        phase: Phase of the stage run.
        step: Training step.
        family: Family of the task.
        is_right: Whether the answer was right; None where infrastructure lost the episode.
        blocks: Code that ran without error, in order; failed code does not count as a technique.
    """

    trajectory: int
    phase: str
    step: int
    family: str
    is_right: bool | None
    blocks: tuple[str, ...]


def read_programs(session: Session, stage_run: str) -> list[Program]:
    """Return the programs of a stage run, in the order in which they were stored."""
    blocks: defaultdict[int, list[str]] = defaultdict(list)
    code = (
        select(TurnRow.trajectory, TurnRow.content)
        .join(TrajectoryRow, TrajectoryRow.id == TurnRow.trajectory)
        .join(
            ExecutionRow,
            (ExecutionRow.trajectory == TurnRow.trajectory)
            & (ExecutionRow.number == TurnRow.number),
        )
        .where(TrajectoryRow.stage_run == stage_run)
        .where(ExecutionRow.outcome.in_((str(Outcome.OK), HANDLED)))
        .order_by(TurnRow.trajectory, TurnRow.number)
    )
    for trajectory, content in session.execute(code).tuples():
        blocks[trajectory].append(content)
    t = TrajectoryRow
    heads = (
        select(t.id, t.phase, t.step, TaskRow.family, t.accuracy)
        .join(TaskRow, TaskRow.key == t.task_key)
        .where(t.stage_run == stage_run)
        .order_by(t.id)
    )
    return [
        Program(
            number,
            phase,
            step,
            family,
            None if accuracy is None else accuracy == 1.0,
            tuple(blocks[number]),
        )
        for number, phase, step, family, accuracy in session.execute(heads).tuples()
    ]
