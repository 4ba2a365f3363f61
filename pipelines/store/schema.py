"""The tables of the store. Rows contain digests of images; the images themselves are files."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAME = String(80).with_variant(Text(), "postgresql")
_TERM = String(40).with_variant(Text(), "postgresql")
"""Types of user-defined names, of any length: SQLite does not enforce the limits."""

HANDLED = "handled"
"""Stored outcome of a block that ended OK after it had handled an error of its own."""


class Base(DeclarativeBase):
    """Base class of the tables; Alembic compares its metadata with the database."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, str: Text}  # noqa: RUF012


class LineageRow(Base):
    """A stage run with its inputs and outputs. A pipeline run is a row, too, the stages' parent."""

    __tablename__ = "lineage"

    id: Mapped[str] = mapped_column(_NAME, primary_key=True)
    stage: Mapped[str] = mapped_column(String(20), index=True)
    key: Mapped[str] = mapped_column(String(64), index=True)
    preset: Mapped[str] = mapped_column(_NAME)
    status: Mapped[str] = mapped_column(String(20))
    parent: Mapped[str | None] = mapped_column(_NAME, index=True)
    inputs: Mapped[dict[str, Any]]
    outputs: Mapped[dict[str, Any]]
    parameters: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(BigInteger)
    code_version: Mapped[str] = mapped_column(String(64))
    git_commit: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    digest: Mapped[str | None] = mapped_column(String(64))


class TaskRow(Base):
    """A task as it was played; ``key`` is the digest of its content and everything for grading."""

    __tablename__ = "tasks"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    task_id: Mapped[str] = mapped_column(index=True)
    suite: Mapped[str]
    family: Mapped[str] = mapped_column(_NAME, index=True)
    split: Mapped[str] = mapped_column(String(10))
    question: Mapped[str]
    images: Mapped[list[Any]]
    answer: Mapped[str]
    answer_kind: Mapped[str] = mapped_column(String(20))
    tolerance: Mapped[float]
    choices: Mapped[list[Any]]
    difficulty: Mapped[str] = mapped_column(String(10))
    needs_picture: Mapped[bool]
    provenance: Mapped[dict[str, Any]]
    digest: Mapped[str | None] = mapped_column(String(64))


class TrajectoryRow(Base):
    """One episode. ``phase`` names the policy and mode within the stage run (``grpo/greedy``)."""

    __tablename__ = "trajectories"
    __table_args__ = (
        UniqueConstraint("stage_run", "phase", "step", "task_key", "sample"),
        Index("ix_trajectories_task", "task_key"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    stage_run: Mapped[str] = mapped_column(_NAME, ForeignKey("lineage.id"))
    phase: Mapped[str] = mapped_column(_NAME)
    step: Mapped[int]
    sample: Mapped[int]
    task_key: Mapped[str] = mapped_column(ForeignKey("tasks.key"))
    policy_id: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    opening: Mapped[list[Any]]
    ending: Mapped[str] = mapped_column(String(20))
    accuracy: Mapped[float | None]
    answer: Mapped[str | None]
    pass_rate: Mapped[float | None]
    tool_calls: Mapped[int]
    tool_successes: Mapped[int]
    sessions_lost: Mapped[int | None]
    tokens: Mapped[bytes | None] = mapped_column(LargeBinary)
    digest: Mapped[str | None] = mapped_column(String(64))
    verdict_digest: Mapped[str | None] = mapped_column(String(64))


class TurnRow(Base):
    """One turn of an episode."""

    __tablename__ = "turns"

    trajectory: Mapped[int] = mapped_column(
        ForeignKey("trajectories.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    action: Mapped[str] = mapped_column(String(10))
    content: Mapped[str]
    format_fault: Mapped[str | None]
    reply: Mapped[dict[str, Any] | None]
    has_evidence: Mapped[bool | None]
    generation_seconds: Mapped[float | None]


class ExecutionRow(Base):
    """The sandbox's record of a turn's code; ``outcome`` is an `Outcome`, or `HANDLED`."""

    __tablename__ = "executions"

    trajectory: Mapped[int] = mapped_column(
        ForeignKey("trajectories.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    outcome: Mapped[str] = mapped_column(String(10))
    stdout: Mapped[str]
    stderr: Mapped[str]
    error: Mapped[str | None]
    images: Mapped[list[Any]]
    wall_seconds: Mapped[float]
    cpu_seconds: Mapped[float]


class ScoreRow(Base):
    """A reward term of a trajectory in a scoring (``original``, or a rescoring's name)."""

    __tablename__ = "scores"

    trajectory: Mapped[int] = mapped_column(
        ForeignKey("trajectories.id", ondelete="CASCADE"), primary_key=True
    )
    scoring: Mapped[str] = mapped_column(_NAME, primary_key=True)
    term: Mapped[str] = mapped_column(_TERM, primary_key=True)
    value: Mapped[float | None] = mapped_column(Float)


class CurationRow(Base):
    """The decision on a candidate task, with its reason and kind of demonstration."""

    __tablename__ = "curation"

    stage_run: Mapped[str] = mapped_column(_NAME, ForeignKey("lineage.id"), primary_key=True)
    task_key: Mapped[str] = mapped_column(ForeignKey("tasks.key"), primary_key=True)
    position: Mapped[int]
    is_kept: Mapped[bool]
    reason: Mapped[str]
    band: Mapped[str] = mapped_column(String(10))
    weak_rate: Mapped[float | None]
    strong_rate: Mapped[float | None]
    demonstration: Mapped[str | None] = mapped_column(_NAME)


class ClaimRow(Base):
    """A claim of work by a process, with its lease and the token that fences its writes."""

    __tablename__ = "claims"

    work: Mapped[str] = mapped_column(String(120), primary_key=True)
    token: Mapped[int] = mapped_column(BigInteger)
    mark: Mapped[str] = mapped_column(String(32))
    host: Mapped[str] = mapped_column(String(120))
    pid: Mapped[int] = mapped_column(BigInteger)
    begun: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    expires_at: Mapped[float] = mapped_column(Float)


class SealRow(Base):
    """The digest of a stage run's results, taken when they were written.

    ``kind`` is ``curation`` (its decisions), ``trajectories`` (the set of them) or ``model`` (the
    files of its checkpoint); ``content`` is what was hashed: counts, or files' sizes and SHA-256.
    """

    __tablename__ = "seals"

    stage_run: Mapped[str] = mapped_column(
        _NAME, ForeignKey("lineage.id", ondelete="CASCADE"), primary_key=True
    )
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    content: Mapped[dict[str, Any]]
