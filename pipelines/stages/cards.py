"""The data card of a curation: the candidates, which of them were kept, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...envs.types import Difficulty, Task
from ..charts.markdown_table import markdown_table
from ..config.settings import CurateSettings
from ..config.strict_model import read_as
from ..runs.context import StageContext
from ..store.lineage import StageRun
from ..store.store import Store
from .curation import Candidate, Decision, count_reasons


def write_data_card(
    context: StageContext,
    tasks: Sequence[Task],
    candidates: Sequence[Candidate],
    decisions: Sequence[Decision],
) -> Path:
    """Write the data card of a curation and return its path."""
    path = context.folder / "data_card.md"
    settings = read_as(context.preset.curate, CurateSettings)
    kept = sum(decision.is_kept for decision in decisions)
    lines = [
        f"# Data card: {context.preset.suite}, train",
        "",
        f"Stage run `{context.run.id}`, seed {context.seed}, code {context.run.code_version}.",
        "",
        f"{len(tasks)} candidates, {kept} kept. The weak policy ({settings.weak}) had "
        f"{settings.weak_samples} samples per task, the strong one ({settings.strong}) "
        f"{settings.strong_samples}. Easy: pass rate from {settings.easy_above}; hard: up to "
        f"{settings.hard_below}.",
        "",
        "## Outcome for the candidates",
        "",
        *markdown_table(("reason", "tasks"), sorted(count_reasons(decisions).items())),
        "",
        "## Kept, by family and difficulty",
        "",
        *_by_family(tasks, decisions),
        "",
        "## Demonstrations of the kept tasks",
        "",
        *markdown_table(("demonstration", *Difficulty), _demonstrations(decisions)),
        "",
        "## Pass rates of the weak policy",
        "",
        *markdown_table(("pass rate", "candidates"), _rates(candidates)),
        "",
        "## Provenance",
        "",
        *_provenance(tasks),
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _by_family(tasks: Sequence[Task], decisions: Sequence[Decision]) -> list[str]:
    counts: Counter[tuple[str, Difficulty]] = Counter()
    looked_at: Counter[str] = Counter()
    for task, decision in zip(tasks, decisions, strict=True):
        looked_at[task.family] += 1
        if decision.is_kept:
            counts[task.family, decision.difficulty] += 1
    rows = [
        (family, count, *(counts[family, difficulty] for difficulty in Difficulty))
        for family, count in sorted(looked_at.items())
    ]
    return markdown_table(("family", "candidates", *Difficulty), rows)


def _demonstrations(decisions: Sequence[Decision]) -> list[tuple[object, ...]]:
    counts = Counter((decision.demonstration, decision.difficulty) for decision in decisions)
    return [
        (kind, *(counts[kind, difficulty] for difficulty in Difficulty))
        for kind in ("direct", "tools")
    ]


def _rates(candidates: Sequence[Candidate]) -> list[tuple[str, int]]:
    counts = Counter(
        "not scored" if c.weak_rate is None else f"{c.weak_rate:.2f}" for c in candidates
    )
    return sorted(counts.items())


def _provenance(tasks: Sequence[Task]) -> list[str]:
    """Return lines on the tasks' provenance; a field with many values is summarized by count."""
    values: dict[str, Counter[str]] = {}
    for task in tasks:
        for name, value in task.provenance.items():
            values.setdefault(name, Counter())[value] += 1
    lines: list[str] = []
    for name, counts in sorted(values.items()):
        shown = ", ".join(f"{value} ({count})" for value, count in counts.most_common(5))
        rest = f" and {len(counts) - 5} other values" if len(counts) > 5 else ""
        lines.append(f"- {name}: {shown}{rest}" if len(counts) <= 50 else _many(name, counts))
    return lines or ["The tasks have no provenance."]


def _many(name: str, counts: Counter[str]) -> str:
    return f"- {name}: {len(counts)} different values"


def curation_lines(_store: Store, run: StageRun, _folder: Path) -> list[str]:
    """Return the results of a curation, in Markdown."""
    reasons: Mapping[str, int] = run.outputs.get("reasons", {})
    head = f"{run.outputs.get('candidates', 0)} candidates; see `data_card.md` for details."
    return [head, "", *markdown_table(["outcome", "tasks"], sorted(reasons.items()))]
