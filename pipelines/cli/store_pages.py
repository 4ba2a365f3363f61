"""Output of ``codedance store``, in lines of 80 columns."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...sandbox.plain_text import escape_controls
from ..data.exporting import Exported
from ..store.findings import Finding, Verdict
from ..store.images import ImageFolder
from ..store.lineage import StageRun
from ..store.maintenance.checkpoints import Swept
from ..store.maintenance.listing import Holdings, Listed
from ..store.maintenance.pruning import Pruned
from .output import column_lines, run_document

_WIDTH = 80
_SHOWN_FINDINGS = 20
_HEAD = ("RUN", "STATUS", "BEGUN (UTC)", "TRAJECTORIES")


def list_lines(held: Holdings, listed: Sequence[Listed], count: int) -> Iterator[str]:
    """Yield one line per run, and the size of the store."""
    if listed:
        yield from column_lines([_HEAD, *map(_list_row, listed)])
    else:
        yield "no run is stored yet; `codedance run` starts one"
    if count > len(listed):
        yield f"… and {count - len(listed)} older ones: --limit {count} shows all"
    yield ""
    yield f"database  {held.address}"
    yield f"          {_megabytes(held.database_bytes)}, schema {held.schema}"
    rows = ", ".join(f"{count:,} {name}" for name, count in held.rows.items())
    yield from textwrap.wrap(rows, _WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 10)
    yield f"pictures  {held.images}"
    yield f"          {held.pictures:,}, {_megabytes(held.picture_bytes)}"


def listed_document(one: Listed) -> dict[str, Any]:
    """Return a run with its parameters and phases as a JSON document."""
    phases = [{**asdict(phase), "accuracy": phase.accuracy} for phase in one.phases]
    details = {"parameters": one.run.parameters, "key": one.run.key}
    return {**run_document(one.run), **details, "trajectories": one.trajectories, "phases": phases}


def run_lines(one: Listed) -> Iterator[str]:
    """Yield the lines of a run: its parameters, inputs, outputs and phases."""
    run = one.run
    yield run.id
    yield from _fields(
        {
            "stage": run.stage,
            "status": run.status + (f": {run.error}" if run.error else ""),
            "begun": f"{run.started_at:%Y-%m-%d %H:%M:%S} UTC",
            "ended": f"{run.ended_at:%Y-%m-%d %H:%M:%S} UTC" if run.ended_at else "not yet",
            "made for": run.parent or "itself",
            "seed": run.seed,
            "code": run.code_version[:12],
            "commit": (run.git_commit or "none")[:12],
        }
    )
    for title, values in (
        ("inputs", run.inputs),
        ("outputs", run.outputs),
        ("parameters", run.parameters),
    ):
        if values:
            yield title
            yield from _fields(values)
    if one.phases:
        yield ""
        head = ("PHASE", "TRAJECTORIES", "STEPS", "ACCURACY", "CALLS", "NUMBERS")
        yield from column_lines(
            [
                head,
                *(
                    (
                        phase.name,
                        f"{phase.trajectories:,}",
                        f"{phase.steps:,}",
                        "–" if phase.accuracy is None else f"{phase.accuracy:.1%}",
                        f"{phase.calls:,}",
                        _span(phase.first, phase.last),
                    )
                    for phase in one.phases
                ),
            ]
        )
        yield f"a trajectory by its number: `codedance store show {one.phases[0].first}`"
    elif stages := run.stage_runs.values():
        yield ""
        yield "its trajectories are those of its stages:"
        yield from (f"  codedance store show {stage}" for stage in stages)


def trajectory_lines(entry: Mapping[str, Any], images: ImageFolder) -> Iterator[str]:
    """Yield the lines of a trajectory from its question to its rewards; images by their files."""
    task = entry["task"]
    yield f"trajectory {entry['id']} of {entry['stage_run']}"
    yield from _fields(
        {
            "phase": f"{entry['phase']}, step {entry['step']}, sample {entry['sample']}",
            "policy": entry["policy_id"],
            "task": task["task_id"],
            "question": task["question"],
            "answer": task["answer"],
        }
    )
    for digest in task["images"]:
        yield f"  picture    {images.path(digest)}"
    for number, turn in enumerate(entry["turns"], 1):
        seconds = turn["generation_seconds"]
        yield ""
        yield f"turn {number}" + ("" if seconds is None else f", written in {seconds:.3f} s")
        yield escape_controls(turn["text"])
        if turn["execution"] is not None:
            yield from _execution_lines(turn["execution"], images)
    yield ""
    yield f"ended: {entry['ending']}, answer {entry['answer']!r}, accuracy {entry['accuracy']}"
    for scoring, terms in entry["scores"].items():
        shown = ", ".join(f"{term} {_figure(value)}" for term, value in sorted(terms.items()))
        yield f"{scoring}: {shown}"


def _execution_lines(execution: Mapping[str, Any], images: ImageFolder) -> Iterator[str]:
    yield f"→ {execution['outcome']} in {execution['wall_seconds']:.3f} s"
    for text in (execution["stdout"], execution["error"]):
        if text:
            yield escape_controls(text.rstrip())
    for digest in execution["images"]:
        yield f"  picture    {images.path(digest)}"


def export_lines(made: Exported, runs: Sequence[StageRun]) -> Iterator[str]:
    """Yield what could not be copied, what was written, and where."""
    yield from _finding_lines(made.broken, len(made.broken))
    yield (
        f"{made.trajectories:,} trajectories of {_some(len(runs), 'run')}, "
        f"{_some(made.tasks, 'task')}, {_some(made.pictures, 'picture')}"
    )
    yield str(made.folder)
    if made.broken:
        yield f"incomplete: {len(made.broken):,} could not be copied; run.json names them"


def pruned_lines(done: Pruned, *, is_done: bool) -> Iterator[str]:
    """Yield what was removed, or would be."""
    for run in done.runs:
        yield f"  {run}"
    waste = ""
    if done.pictures is not None:
        waste = (
            f", {_some(done.tasks or 0, 'task')} and {_some(done.pictures, 'picture')} "
            f"({_megabytes(done.picture_bytes)})"
        )
    runs = _some(len(done.runs), "run")
    trajectories = f"{done.trajectories:,} trajectories"
    yield f"{'removed' if is_done else 'would remove'} {runs} with {trajectories}{waste}"
    if done.pictures is None:
        yield "a run is writing to the store: tasks and pictures that nothing names stay for now"
    if not is_done:
        yield "nothing was removed: use --yes to remove"


def swept_lines(swept: Swept, root: Path, *, is_done: bool) -> Iterator[str]:
    """Yield what was freed in the stages' folders, or would be, with its size."""
    for one in swept.freed:
        shown = one.path.relative_to(root) if one.path.is_relative_to(root) else one.path
        yield f"  {shown}  {_megabytes(one.size_bytes)}  {one.reason}"
    for text in swept.left:
        yield textwrap.fill(text, _WIDTH, subsequent_indent="  ")
    did = "freed" if is_done else "would free"
    yield f"{did} {_megabytes(swept.size_bytes)} of checkpoints and states"


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """Yield what is wrong, and how much was checked."""
    yield from _finding_lines(verdict.findings, verdict.wrong)
    checked = ", ".join(f"{count:,} {kind}" for kind, count in verdict.checked.items())
    yield textwrap.fill(f"checked {checked} in {verdict.seconds:.1f} s", _WIDTH)
    if verdict.unsealed:
        yield f"{verdict.unsealed:,} trajectories stored before there were digests: not checked"
    if verdict.unknown:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in verdict.unknown.items())
        line = f"unknown, stored before there were digests: {kinds}"
        yield textwrap.fill(line, _WIDTH)
    if verdict.unused:
        yield f"{_some(verdict.unused, 'picture')} that no row names: codedance store prune --yes"
    yield "the store is whole" if verdict.is_whole else f"wrong: {verdict.wrong:,}"


def _finding_lines(findings: Sequence[Finding], count: int) -> Iterator[str]:
    """Yield the first findings."""
    for one in findings[:_SHOWN_FINDINGS]:
        line = f"BAD  {one.kind} {one.name}: {one.problem}"
        yield textwrap.fill(
            line, _WIDTH, subsequent_indent=" " * 5, break_long_words=False, break_on_hyphens=False
        )
    if count > _SHOWN_FINDINGS:
        yield f"… {count - _SHOWN_FINDINGS:,} more; --json lists the first thousand"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} … {last}"


def _list_row(one: Listed) -> tuple[str, ...]:
    count = f"{one.trajectories:,}" if one.phases else "–"
    return one.run.id, one.run.status, f"{one.run.started_at:%Y-%m-%d %H:%M}", count


def _fields(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines: Iterable[str] = textwrap.wrap(escape_controls(text), _WIDTH - 13) or [""]
        for number, line in enumerate(lines):
            yield f"  {name if number == 0 else '':<10} {line}".rstrip()


def _figure(value: float | None) -> str:
    return "not scored" if value is None else f"{value:g}"


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
