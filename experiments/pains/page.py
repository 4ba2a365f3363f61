"""Writes the results of the tries as a page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from codedance.pipelines.runs.machine import describe_machine

from .running import PAINS, Results
from .verdict import FAILS, PASSES, UNTRIED

RESULTS = Path(__file__).parent / "results.md"
_NAMES = {"ours": "CodeDance", "trl": "TRL", "verl": "verl", "verifiers": "verifiers"}
_OPENING = """# The field's pains, tried side by side

Written by `python -m experiments.pains` (`make pains`) on {day}. Each pain is a [script](tries)
that is run against the installed packages, on a CPU and without Docker: {versions}.
Machine: {processor}, {cores} cores; load {load:.1f} before the run. "Cannot be tried here" says
nothing about a package.
"""


def page(results: Results) -> str:
    """Return the page: a table of verdicts, then what was seen."""
    contestants = list(results.versions)
    machine = describe_machine()
    opening = _OPENING.format(
        day=datetime.now(UTC).date().isoformat(),
        versions=", ".join(f"{_NAMES[one]} {results.versions[one]}" for one in contestants),
        processor=machine.processor,
        cores=machine.cores,
        load=results.load_before,
    )
    names = [name for name in PAINS if any(key[0] == name for key in results.verdicts)]
    return "\n".join([opening, *_table(results, names, contestants), "", *_details(results, names)])


def _table(results: Results, names: list[str], contestants: list[str]) -> list[str]:
    rows = [f"| | pain | {' | '.join(_NAMES[one] for one in contestants)} |"]
    rows.append("|---|---|" + "---|" * len(contestants))
    numbers = {name: number for number, name in enumerate(PAINS, 1)}
    for name in names:
        words = [results.verdicts[name, one].result for one in contestants]
        cells = ["cannot be tried" if word == UNTRIED else word for word in words]
        rows.append(f"| {numbers[name]} | {PAINS[name]} | {' | '.join(cells)} |")
    counts = [
        " / ".join(
            str(sum(results.verdicts[name, one].result == word for name in names))
            for word in (PASSES, FAILS, UNTRIED)
        )
        for one in contestants
    ]
    return [*rows, f"| | passes / fails / cannot be tried | {' | '.join(counts)} |"]


def _details(results: Results, names: list[str]) -> list[str]:
    lines = ["## What was seen", ""]
    for number, name in enumerate(PAINS, 1):
        if name not in names:
            continue
        lines += [f"### {number}. [{PAINS[name]}](tries/{name}.py)", ""]
        for contestant in results.versions:
            found = results.verdicts[name, contestant]
            said = found.evidence.replace("<", "&lt;").replace("|", "\\|")
            lines.append(f"- **{_NAMES[contestant]}** {found.result}: {said}")
        lines.append("")
    return lines
