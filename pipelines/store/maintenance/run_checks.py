"""Check the rows of runs, the references between runs, and the results of stages.

A stage's results (decisions, trajectories, checkpoints) are checked against its seals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ..digests import content_digest, row_digest
from ..findings import Verdict
from ..lineage import PIPELINE, StageRequest, stage_runs
from ..readable import read_rows
from ..schema import CurationRow, LineageRow, SealRow
from ..seals import (
    CURATION,
    MODEL,
    TRAJECTORIES,
    curation_content,
    is_formed,
    model_problems,
    trajectories_content,
)
from ..store import Store

Seals = dict[tuple[str, str], "dict[str, Any] | None"]
"""Content of the seals by run and kind; None for an unusable seal."""


def check_runs(store: Store, verdict: Verdict, on_progress: Callable[[str, int], None]) -> None:
    """Check the rows of all runs, and the results of the finished ones, against their digests."""
    rows, unread = read_rows(store.database, LineageRow)
    verdict.count("runs", len(rows) + len(unread))
    verdict.extend(one.finding for one in unread)
    known = {row["id"] for row in rows} | {one.key[0] for one in unread}
    for row in rows:
        _check_row(row, verdict)
        for place, name in _named_by(row):
            if name not in known:
                verdict.add("run", row["id"], f"its {place} names {name}, which does not exist")
    seals = _read_seals(store, verdict)
    _check_curations(store, seals, verdict)
    for row in rows:
        if row["status"] == "finished":  # others may still change
            _check_stage(store, row, seals, verdict, on_progress)


def _check_row(row: Mapping[str, Any], verdict: Verdict) -> None:
    names = ("stage", "preset", "parameters", "inputs", "seed", "code_version")
    if StageRequest(*(row[name] for name in names)).key != row["key"]:
        verdict.add("run", row["id"], "its request was changed: its key no longer matches")
    if row["digest"] is None:
        verdict.note_unknown("runs")
    elif row_digest(row) != row["digest"]:
        verdict.add("run", row["id"], "its row was changed: its digest no longer matches")


def _named_by(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the runs that a run names, each with the place; `prune` keeps all of them."""
    if row["parent"] is not None:
        yield "parent", row["parent"]
    for name, value in row["inputs"].items():
        yield f"input {name}", str(value)
    for name, value in stage_runs(row["stage"], row["outputs"]).items():
        yield f"output {name}", value


def _read_seals(store: Store, verdict: Verdict) -> Seals:
    """Return the seals, and add findings for those that were changed or cannot be read."""
    rows, unread = read_rows(store.database, SealRow)
    seals: Seals = {(one.key[0], one.key[1]): None for one in unread}
    verdict.extend(one.finding for one in unread)
    for row in rows:
        run, kind, content = row["stage_run"], row["kind"], row["content"]
        is_fit = is_formed(kind, content)
        if content_digest(content) != row["digest"]:
            verdict.add("run", run, f"the seal of its {kind} was changed")
        elif not is_fit:
            verdict.add("run", run, f"the seal of its {kind} is malformed")
        seals[run, kind] = content if is_fit else None
    return seals


def _check_curations(store: Store, seals: Seals, verdict: Verdict) -> None:
    curated = store.database.run(
        lambda session: set(session.scalars(select(CurationRow.stage_run).distinct()))
    )
    for run in sorted(curated | {run for run, kind in seals if kind == CURATION}):
        if (run, CURATION) not in seals:
            verdict.note_unknown("curations")
            continue
        _, unread = read_rows(store.database, CurationRow, CurationRow.stage_run == run)
        verdict.extend(one.finding for one in unread)
        sealed = seals[run, CURATION]
        if unread or sealed is None:
            continue
        found = store.database.run(lambda session, run=run: curation_content(session, run))
        if found != sealed:
            verdict.add("run", run, "the decisions of its curation were changed")


def _check_stage(
    store: Store,
    row: Mapping[str, Any],
    seals: Seals,
    verdict: Verdict,
    on_progress: Callable[[str, int], None],
) -> None:
    """Check the set of trajectories of a finished run, and its checkpoint."""
    run = row["id"]
    sealed = seals.get((run, TRAJECTORIES))
    if sealed is not None:
        _check_count(store, run, sealed, verdict)
    elif row["stage"] != PIPELINE and (run, TRAJECTORIES) not in seals:
        verdict.note_unknown("stages")
    folder = row["outputs"].get("model")
    if folder is None:
        return
    if (run, MODEL) not in seals:
        verdict.note_unknown("models")
    elif (files := seals[run, MODEL]) is not None:
        _check_model(run, str(folder), files, verdict)
    on_progress("models", verdict.count("models"))


def _check_count(store: Store, run: str, sealed: Mapping[str, Any], verdict: Verdict) -> None:
    try:
        found = store.database.run(lambda session: trajectories_content(session, run))
    except TypeError as error:  # not sortable; the damaged rows have their own findings
        verdict.add("run", run, f"its trajectories cannot be counted: {error}")
        return
    if found["count"] != sealed["count"]:
        problem = f"it finished with {sealed['count']} trajectories, but has {found['count']}"
        verdict.add("run", run, problem)
    elif found != sealed:
        verdict.add("run", run, "its trajectories are no longer those that it finished with")


def _check_model(run: str, folder: str, files: Mapping[str, Any], verdict: Verdict) -> None:
    try:
        problems: Iterable[tuple[str, str]] = model_problems(Path(folder), files)
    except (OSError, ValueError) as error:  # no permission to read it, or not a path
        problems = [(folder, f"cannot be read: {error}")]
    for name, problem in problems:
        verdict.add("model", name, f"{problem}; {run} made it")
