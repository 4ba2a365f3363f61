"""Digests of changing rows, renewed with every change, and seals of finished stages' results.

Rows that never change (tasks, turns) get their digest when they are inserted. A run's row changes
often: `seal_changed_runs` handles every UPDATE of the lineage, so that none is missed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Result, Table, delete, insert, inspect, select, update
from sqlalchemy.orm import ORMExecuteState, Session

from .digests import content_digest, row_digest, verdict_digest
from .schema import Base, CurationRow, LineageRow, ScoreRow, SealRow, TrajectoryRow

CURATION, TRAJECTORIES, MODEL = "curation", "trajectories", "model"

_LINEAGE = cast("Table", LineageRow.__table__)
"""The plain table, whose statements `seal_changed_runs` ignores."""


def plain_rows(session: Session, table: type[Base], *where: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return rows as plain values, in the order of their keys."""
    columns = table.__table__.columns
    query = select(*columns).where(*where).order_by(*inspect(table).primary_key)
    return [dict(row) for row in session.execute(query).mappings()]


def seal_changed_runs(state: ORMExecuteState) -> Result[Any] | None:
    """Renew the digests of runs whose rows a statement changes; a ``do_orm_execute`` handler."""
    mapper = state.bind_mapper
    if not state.is_update or mapper is None or mapper.class_ is not LineageRow:
        return None
    where = getattr(state.statement, "whereclause", None)
    chosen = select(_LINEAGE.c.id) if where is None else select(_LINEAGE.c.id).where(where)
    ids = list(state.session.execute(chosen).scalars())
    result = state.invoke_statement()
    seal_runs(state.session, ids)
    return result


def seal_runs(session: Session, ids: Sequence[str]) -> None:
    """Renew the digests of these runs' rows."""
    for row in plain_rows(session, LineageRow, LineageRow.id.in_(ids)):
        change = update(_LINEAGE).where(_LINEAGE.c.id == row["id"])
        session.execute(change.values(digest=row_digest(row)))


def seal_verdicts(session: Session, ids: Sequence[int]) -> None:
    """Renew the digests of these trajectories' verdicts after grading or scoring."""
    found = verdict_digests(session, ids)
    rows = [{"id": number, "verdict_digest": digest} for number, digest in found.items()]
    if rows:
        session.execute(update(TrajectoryRow), rows)


def verdict_digests(session: Session, ids: Sequence[int]) -> dict[int, str]:
    """Return the digest of the current verdicts of each of these trajectories, by id."""
    scores: defaultdict[int, list[tuple[str, str, float | None]]] = defaultdict(list)
    s = ScoreRow
    query = select(s.trajectory, s.scoring, s.term, s.value).where(s.trajectory.in_(ids))
    for trajectory, scoring, term, value in session.execute(query).tuples():
        scores[trajectory].append((scoring, term, value))
    heads = select(TrajectoryRow.id, TrajectoryRow.accuracy).where(TrajectoryRow.id.in_(ids))
    return {
        number: verdict_digest(accuracy, scores[number])
        for number, accuracy in session.execute(heads).tuples()
    }


def put_seal(session: Session, stage_run: str, kind: str, content: Mapping[str, Any]) -> None:
    """Store a seal of a stage run, replacing an older one of its kind."""
    chosen = SealRow.stage_run == stage_run, SealRow.kind == kind
    session.execute(delete(SealRow).where(*chosen))
    row = {"stage_run": stage_run, "kind": kind, "content": dict(content)}
    session.execute(insert(SealRow), [{**row, "digest": content_digest(row["content"])}])


def curation_content(session: Session, stage_run: str) -> dict[str, Any]:
    """Return the content of a curation's seal: the number of decisions and their digest."""
    rows = plain_rows(session, CurationRow, CurationRow.stage_run == stage_run)
    return {"count": len(rows), "rows": content_digest([row_digest(row) for row in rows])}


def trajectories_content(session: Session, stage_run: str) -> dict[str, Any]:
    """Return the content of the seal of a stage's trajectories: their number and digest."""
    t = TrajectoryRow
    query = select(t.phase, t.step, t.task_key, t.sample).where(t.stage_run == stage_run)
    places = sorted(tuple(place) for place in session.execute(query))
    return {"count": len(places), "which": content_digest(places)}


def model_content(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's seal: size and SHA-256 of each file, by name."""
    return {name: [size, _sha256(path)] for name, path, size in _files(folder)}


def is_formed(kind: str, content: Mapping[str, Any]) -> bool:
    """Return whether a seal's content is well-formed, so that it can be compared.

    >>> is_formed(MODEL, {"config.json": [2, "44136f"]}), is_formed(MODEL, {"a": 1})
    (True, False)
    """
    if kind != MODEL:
        return isinstance(content.get("count"), int)
    return all(_is_file(value) for value in content.values())


def _is_file(value: object) -> bool:
    if not isinstance(value, list | tuple):
        return False
    return [type(one) for one in cast("Sequence[Any]", value)] == [int, str]


def model_problems(folder: Path, content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Compare a checkpoint's folder with its seal; return file and problem of each difference."""
    if not folder.is_dir():
        return [(str(folder), "the model's folder is missing")]
    there = {name: (path, size) for name, path, size in _files(folder)}
    problems = [
        (str(folder / name), "was not there when its stage finished")
        for name in sorted(there.keys() - content.keys())
    ]
    for name, (size, digest) in sorted(content.items()):
        if name not in there:
            problems.append((str(folder / name), "is missing"))
        elif there[name][1] != size:
            problems.append((str(folder / name), f"had {size} bytes, has {there[name][1]}"))
        elif _sha256(there[name][0]) != digest:
            problems.append((str(folder / name), "was changed: its digest no longer matches"))
    return problems


def _files(folder: Path) -> Iterable[tuple[str, Path, int]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path, path.stat().st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
