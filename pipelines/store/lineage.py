"""The lineage: which stage run made what from which inputs."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, cast

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from .connection.database import Database, insert_missing
from .connection.errors import StoreError
from .digests import row_digest
from .findings import Finding
from .readable import read_rows
from .rows import clean
from .schema import LineageRow

Status = Literal["running", "finished", "interrupted", "failed"]
PIPELINE = "pipeline"
SECONDS = "seconds"
"""Key in the outputs: working time so far, in seconds."""
LOST = "lost"
"""Key in the outputs of a stage or pipeline run: episodes without a verdict, by phase."""


class UnknownRunError(StoreError):
    """A name matches no run, or more than one."""


class UnreadableRunError(StoreError):
    """Rows of runs are damaged.

    Args:
        findings: The damaged rows and their problems.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        first = findings[0]
        super().__init__(
            f"the row of run {first.name} is damaged ({first.problem}): `codedance store verify` "
            "lists all damage; restore the database from a backup, or correct the row"
        )


@dataclass(frozen=True, slots=True)
class StageRun:
    """One run of a stage (or of the whole pipeline), as the lineage records it.

    Attributes:
        id: Readable unique id, such as ``sft-20261122-145501-3f2a``.
        stage: ``pipeline``, or the name of a stage.
        key: Digest of code version, parameters, seed and inputs: equal keys mean equal work.
        preset: Name of the preset.
        status: ``running``, ``finished``, ``interrupted`` or ``failed``.
        parent: Pipeline run that it was first made for; None for a pipeline run.
        inputs: Ids of the stage runs that it read, by stage.
        outputs: Results: paths, counts, figures.
        parameters: All parameters.
        seed: Random seed of every draw.
        code_version: Digest of the source code.
        git_commit: Commit of the checkout; None outside of one.
        error: Error of a failed run; None otherwise.
        started_at: Start time, in UTC.
        ended_at: End time, in UTC; None while it runs.
    """

    id: str
    stage: str
    key: str
    preset: str
    status: str
    parent: str | None
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    parameters: Mapping[str, Any]
    seed: int
    code_version: str
    git_commit: str | None
    error: str | None
    started_at: datetime
    ended_at: datetime | None

    @property
    def is_finished(self) -> bool:
        """Whether the run is finished, so that its outputs can be used."""
        return self.status == "finished"

    @property
    def lost(self) -> int:
        """Number of episodes that infrastructure lost; a rerun completes them.

        A stage of another package may record anything under this key: only counts are read.
        """
        recorded: object = self.outputs.get(LOST)
        if not isinstance(recorded, Mapping):
            return 0
        counts = cast("Mapping[str, object]", recorded).values()
        return sum(count for count in counts if isinstance(count, int))

    @property
    def is_complete(self) -> bool:
        """Whether the run is finished without lost episodes, so that it can be reused."""
        return self.is_finished and not self.lost

    @property
    def stage_runs(self) -> dict[str, str]:
        """Ids of the stage runs of a pipeline run by stage, in order; empty for a stage run."""
        return stage_runs(self.stage, self.outputs)

    @property
    def seconds(self) -> float:
        """Working time in seconds, without pauses."""
        recorded = self.outputs.get(SECONDS)
        return float(recorded) if isinstance(recorded, int | float) else 0.0


@dataclass(frozen=True, slots=True)
class StageRequest:
    """A request for a stage run: everything that decides its key."""

    stage: str
    preset: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Any]
    seed: int
    code_version: str
    git_commit: str | None = None

    @property
    def key(self) -> str:
        """Digest of everything that decides the result."""
        content = [self.stage, self.parameters, self.inputs, self.seed, self.code_version]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def stage_runs(stage: str, outputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids of the stage runs in a pipeline run's outputs, by stage; else nothing."""
    if stage != PIPELINE:
        return {}
    return {
        name: str(value) for name, value in outputs.items() if str(value).startswith(f"{name}-")
    }


class Lineage:
    """The table of stage runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, request: StageRequest, *, parent: str | None = None) -> StageRun:
        """Add a row for a run that starts now, and return it."""
        now = datetime.now(UTC).replace(tzinfo=None)
        name = request.preset if request.stage == PIPELINE else request.stage
        run = StageRun(
            id=f"{name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            stage=request.stage,
            key=request.key,
            preset=request.preset,
            status="running",
            parent=parent,
            inputs=dict(request.inputs),
            outputs={},
            parameters=dict(request.parameters),
            seed=request.seed,
            code_version=request.code_version,
            git_commit=request.git_commit,
            error=None,
            started_at=now,
            ended_at=None,
        )
        row = {field.name: getattr(run, field.name) for field in fields(run)}
        row["digest"] = row_digest(row)
        self._database.run(lambda session: insert_missing(session, LineageRow, [row]))
        return run

    def mark(
        self,
        run_id: str,
        status: Status,
        *,
        outputs: Mapping[str, Any] | None = None,
        error: str | None = None,
        unless: Callable[[Session], bool] | None = None,
    ) -> None:
        """Set the status of a run.

        Args:
            run_id: Id of the run.
            status: The status.
            outputs: New outputs; None leaves them unchanged.
            error: Error of a failed run.
            unless: Asked within the transaction whether to leave the run as it is; a finished run
                is left then, too.
        """
        now = datetime.now(UTC).replace(tzinfo=None)
        values: dict[str, Any] = {"status": status, "error": error and clean(error)}
        values["ended_at"] = None if status == "running" else now
        if outputs is not None:
            values["outputs"] = dict(outputs)
        this = LineageRow.id == run_id

        def work(session: Session) -> None:
            if unless is not None:
                # A write comes first, so that nothing changes between the answer and the mark.
                session.execute(update(LineageRow).where(this).values(status=LineageRow.status))
                before = session.execute(select(LineageRow.status).where(this)).scalar()
                if before == "finished" or unless(session):
                    return
            session.execute(update(LineageRow).where(this).values(**values))

        self._database.run(work)

    def get(self, run_id: str) -> StageRun:
        """Return a run by its id, by an unambiguous prefix of it, or ``latest``.

        ``latest`` is the newest pipeline run; without any, the newest single evaluation.

        Raises:
            UnknownRunError: No run matches, or more than one.
        """
        if run_id == "latest":
            alone = (run for run in self.find(stage="evaluate") if run.parent is None)
            newest = self._read(self._query(stage=PIPELINE).limit(1)) or list(alone)
            if not newest:
                raise UnknownRunError("there is no run yet; `codedance run` starts one")
            return newest[0]
        rows = self._read(
            select(LineageRow).where(LineageRow.id.startswith(run_id, autoescape=True))
        )
        exact = [row for row in rows if row.id == run_id]
        if len(exact or rows) != 1:
            found = ", ".join(row.id for row in rows)
            hint = f"this prefix matches {found}" if found else "`codedance runs` lists them"
            raise UnknownRunError(f"no single run is called {run_id!r}; {hint}")
        return (exact or rows)[0]

    def find(self, **columns: str) -> list[StageRun]:
        """Return the runs whose columns have these values, newest first.

        Raises:
            UnreadableRunError: The row of one of them is damaged.
        """
        return self._read(self._query(**columns))

    def find_readable(self, **columns: str) -> tuple[list[StageRun], list[Finding]]:
        """Return the readable runs with these column values, newest first, and the damaged rows."""
        try:
            return self.find(**columns), []
        except UnreadableRunError as error:
            damaged = [finding.name for finding in error.findings]
            return self._read(self._query(**columns).where(LineageRow.id.not_in(damaged))), list(
                error.findings
            )

    def _query(self, **columns: str) -> Select[tuple[LineageRow]]:
        query = select(LineageRow).order_by(LineageRow.started_at.desc(), LineageRow.id.desc())
        for name, value in columns.items():
            query = query.where(getattr(LineageRow, name) == value)
        return query

    def _read(self, query: Select[tuple[LineageRow]]) -> list[StageRun]:
        try:
            return self._database.run(
                lambda session: [_read(row) for row in session.scalars(query)]
            )
        except (ValueError, TypeError):
            chosen = query.with_only_columns(LineageRow.id)
            ids = self._database.run(lambda session: list(session.scalars(chosen)))
            _, unread = read_rows(self._database, LineageRow, LineageRow.id.in_(ids))
            if not unread:
                raise
            raise UnreadableRunError([one.finding for one in unread]) from None


def _read(row: LineageRow) -> StageRun:
    return StageRun(
        id=row.id,
        stage=row.stage,
        key=row.key,
        preset=row.preset,
        status=row.status,
        parent=row.parent,
        inputs=row.inputs,
        outputs=row.outputs,
        parameters=row.parameters,
        seed=row.seed,
        code_version=row.code_version,
        git_commit=row.git_commit,
        error=row.error,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )
