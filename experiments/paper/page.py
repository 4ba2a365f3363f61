"""The results page: the claims, their results so far, and how to run the experiment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance.pipelines.analysis.emergence import Use
from codedance.pipelines.charts.markdown_table import markdown_table
from codedance.pipelines.runs.progress import format_seconds
from codedance.pipelines.store.lineage import StageRun

from .emergences import Emerged
from .figures import Figures
from .plan import judging
from .protocol import Metric, Protocol
from .records import Records, is_done
from .verdicts import Finding, Interval, Judgement

DIFFICULTIES = ("easy", "medium", "hard")
PACKAGED_PLACE = "experiments/paper/protocol.yaml"
UNITS = {
    "accuracy": (100, " points"),
    "tool_calls": (1, " calls"),
    "execution_success": (100, " %"),
}


@dataclass(frozen=True, slots=True)
class Results:
    """Content of the page.

    Attributes:
        preset: Name of the protocol's preset.
        protocol: The protocol.
        digest: Digest that its runs are recorded with.
        records: Its runs.
        figures: Their metrics on the held-out tasks.
        judgements: Results of the claims about metrics.
        emerged: Results of the claims about emergence.
        others: Digests of other protocols in the same store, which are left out.
        file: Path of a custom protocol; None for the packaged one.
        output: Custom path of the page; None for the default one.
    """

    preset: str
    protocol: Protocol
    digest: str
    records: Records
    figures: Figures
    judgements: Sequence[Judgement]
    emerged: Sequence[Emerged]
    others: Iterable[str] = ()
    file: Path | None = None
    output: Path | None = None


def write_page(results: Results) -> str:
    """Return the page as Markdown."""
    parts = [
        _head(results),
        "## Claims\n\n" + _claims(results),
        "## Arms\n\n" + _arms(results),
        "## Comparisons\n\n" + "\n\n".join(_comparison(one) for one in results.judgements),
        *_compositions(results.emerged),
        "## By family\n\n" + _families(results),
        "## Easy tasks by family\n\n" + _easy(results),
        "## Seeds\n\n" + _seeds(results),
    ]
    return "\n\n".join(parts) + "\n"


def _head(results: Results) -> str:
    protocol, runs = results.protocol, _done(results.records)
    complete = [seed for seed in range(protocol.seeds) if _is_complete(results, seed)]
    commits = sorted({run.git_commit[:10] for run in runs if run.git_commit})
    spent = format_seconds(sum(run.seconds for run in runs))
    lines = [
        f"# Results: {protocol.title}",
        "Written by `python -m experiments.claims --report` from recorded runs, according to the "
        f"protocol (`{results.file or PACKAGED_PLACE}`), which was committed before the first of "
        "them.",
        f"- **{len(complete)} of {protocol.seeds} seeds are complete**; "
        f"{sum(1 for one in results.figures if one[2] == 'greedy')} of "
        f"{protocol.seeds * len(protocol.arms)} arms are evaluated.\n"
        f"- Preset `{results.preset}`, protocol `{results.digest[:12]}`; {len(runs)} runs, "
        f"{spent} of work; commits {', '.join(f'`{one}`' for one in commits) or 'unknown'}.\n"
        + _others(results),
        _commands(results),
        f"**Metrics.** {protocol.metrics}",
        f"**Stopping rule.** {protocol.stopping_rule}",
    ]
    return "\n\n".join(lines)


def _others(results: Results) -> str:
    others = sorted(one[:12] for one in results.others)
    if not others:
        return "- No run of another protocol is in the store."
    return f"- Runs of other protocols are in the store and left out: {', '.join(others)}."


def _commands(results: Results) -> str:
    command = f"$ python -m experiments.claims --preset {results.preset}"
    if results.file is not None:
        command += f" --protocol {results.file}"
    if results.output is not None:
        command += f" --output {results.output}"
    return (
        "<!-- not run: trains for hours -->\n```console\n"
        f"{command} --jobs 2   # train and evaluate the rest\n"
        f"{command} --report   # rewrite this page\n"
        "```"
    )


def _claims(results: Results) -> str:
    rows: list[list[str]] = []
    for claim in results.protocol.claims:
        judged = next((one for one in results.judgements if one.claim is claim), None)
        emerged = next((one for one in results.emerged if one.claim is claim), None)
        if judged is not None:
            seeds = min(finding.interval.count for finding in judged.findings)
            figure = _figure(judged)
            rows.append([claim.name, claim.says, f"**{judged.verdict}**", str(seeds), figure])
        elif emerged is not None:
            count = sum(bool(uses) for uses in emerged.frequent.values())
            figure = f"in {count} of {len(emerged.frequent)} seeds"
            seeds = len(emerged.frequent)
            rows.append([claim.name, claim.says, f"**{emerged.verdict}**", str(seeds), figure])
    head = ["claim", "in a sentence", "verdict", "seeds", "figure (95 % over seeds)"]
    return _table(head, rows)


def _figure(judged: Judgement) -> str:
    """Return the decisive figure: the worst, or the best if one is enough."""
    known = [one for one in judged.findings if math.isfinite(one.interval.mean)]
    if not known:
        return "-"
    choose = max if judged.claim.kind == "any_family" else min
    decisive = choose(known, key=lambda one: one.interval.mean)
    text = _interval(decisive.interval, judged.claim.metric, signed=judged.claim.kind != "level")
    return f"{text}, `{decisive.against}`" if len(judged.findings) > 1 else text


def _arms(results: Results) -> str:
    head = [
        "arm",
        "seeds",
        "greedy",
        "sampled",
        *(f"{difficulty}, greedy" for difficulty in DIFFICULTIES),
    ]
    head += [*(f"calls, {difficulty}" for difficulty in DIFFICULTIES), "code ran", "training"]
    rows = [_arm_row(results, arm.name) for arm in results.protocol.arms]
    note = (
        "Means over the finished seeds: right answers in per cent (greedy, and at temperature "
        "1), calls per episode and code that ran at temperature 1, working time of the training."
    )
    return f"{note}\n\n{_table(head, rows)}"


def _arm_row(results: Results, arm: str) -> list[str]:
    seeds = sorted({seed for name, seed, _ in results.figures if name == arm})

    def mean(metric: Metric, mode: str, wanted: Sequence[str] = ()) -> float:
        values = [results.figures[arm, seed, mode].level(metric, wanted) for seed in seeds]
        return sum(values) / len(values) if values else math.nan

    return [
        f"`{arm}`",
        str(len(seeds)),
        _percent(mean("accuracy", "greedy")),
        _percent(mean("accuracy", "sampled")),
        *(_percent(mean("accuracy", "greedy", [difficulty])) for difficulty in DIFFICULTIES),
        *(_number(mean("tool_calls", "sampled", [difficulty])) for difficulty in DIFFICULTIES),
        _percent(mean("execution_success", "sampled")),
        _training_time(results.records, arm),
    ]


def _training_time(records: Records, arm: str) -> str:
    runs = [run for (_, name), run in records.items() if name == f"train {arm}" and is_done(run)]
    return format_seconds(sum(run.seconds for run in runs) / len(runs)) if runs else "-"


def _comparison(judged: Judgement) -> str:
    claim = judged.claim
    tasks = ", ".join(claim.tasks) or "all"
    title = f"**{claim.name}**: {claim.metric.replace('_', ' ')}, {claim.mode}, tasks: {tasks}"
    title += f"; needs more than {_scaled(claim.above, claim.metric)}. {judged.verdict}."
    other = "sampled" if claim.mode == "greedy" else "greedy"
    head = ["first", "second", "seeds", "difference (95 %)", "p", "better", "worse", other, "so"]
    rows = [_line(claim.first, finding, judged) for finding in judged.findings]
    return f"{title}\n\n{_table(head, rows)}"


def _line(first: str, finding: Finding, judged: Judgement) -> list[str]:
    claim = judged.claim
    signed = claim.kind != "level"
    return [
        f"`{first}`",
        f"`{finding.against}`" if finding.against else "-",
        str(finding.interval.count),
        _interval(finding.interval, claim.metric, signed=signed),
        "-" if math.isnan(finding.interval.p) else f"{finding.interval.p:.3f}",
        str(finding.better),
        str(finding.worse),
        _interval(finding.other, claim.metric, signed=signed),
        finding.verdict,
    ]


def _compositions(emerged: Sequence[Emerged]) -> list[str]:
    """Return the section about emergence, if there are claims about it."""
    if not emerged:
        return []
    tables = "\n\n".join(_emergence(one) for one in emerged)
    return ["## Compositions that no demonstration shows\n\n" + tables]


def _emergence(emerged: Emerged) -> str:
    claim = emerged.claim
    where = f" on `{claim.family}`" if claim.family else ""
    title = f"**{claim.name}** (`{claim.first}`{where}): {emerged.verdict}."
    head = ["seed", "composition", "first fifth", "last fifth", "right", "trajectories", "frequent"]
    rows: list[list[str]] = []
    for seed, uses in emerged.frequent.items():
        rows += [_use_row(seed, use, "yes") for use in uses[:5]]
        rows += [_use_row(seed, use, "no") for use in emerged.rare[seed][: 5 - len(uses[:5])]]
    if not rows:
        return f"{title}\n\nNone in the {len(emerged.frequent)} finished seeds."
    return f"{title} Shares of all trajectories.\n\n{_table(head, rows)}"


def _use_row(seed: int, use: Use, word: str) -> list[str]:
    shares = f"{use.first:.1%}", f"{use.last:.1%}", f"{use.right:.0%}"
    return [str(seed), use.name, *shares, str(use.count), word]


def _families(results: Results) -> str:
    table = _by_family(
        results, lambda arm, family: _percent(_mean(results, arm, "accuracy", family))
    )
    return f"Right answers, greedy, means over seeds.\n\n{table}"


def _easy(results: Results) -> str:
    """Return the table of accuracy and calls on easy tasks, which shows where a call is useful."""

    def cell(arm: str, family: str) -> str:
        right = _mean(results, arm, "accuracy", family, difficulty="easy")
        calls = _mean(results, arm, "tool_calls", family, difficulty="easy")
        return f"{_percent(right)} ({_number(calls)})"

    note = "Right answers and, in brackets, calls per episode; greedy, means over seeds."
    return f"{note}\n\n{_by_family(results, cell)}"


def _by_family(results: Results, cell: Callable[[str, str], str]) -> str:
    families = sorted({name for one in results.figures.values() for name in one.families})
    rows = [
        [f"`{arm.name}`", *(cell(arm.name, family) for family in families)]
        for arm in results.protocol.arms
    ]
    return _table(["arm", *families], rows)


def _mean(
    results: Results, arm: str, metric: Metric, family: str, *, difficulty: str | None = None
) -> float:
    """Return the mean of an arm over its seeds, greedy, for a family; NaN without seeds."""
    found = [
        judged.level(metric, [family], difficulty=difficulty)
        for (name, _, mode), judged in results.figures.items()
        if name == arm and mode == "greedy"
    ]
    return sum(found) / len(found) if found else math.nan


def _seeds(results: Results) -> str:
    seeds = range(results.protocol.seeds)
    rows = [
        [f"`{arm.name}`", *(_seed_cell(results, arm.name, seed) for seed in seeds)]
        for arm in results.protocol.arms
    ]
    note = "Right answers, greedy / at temperature 1, per seed; - is not evaluated yet."
    return f"{note}\n\n{_table(['arm', *(f'seed {seed}' for seed in seeds)], rows)}"


def _seed_cell(results: Results, arm: str, seed: int) -> str:
    if (arm, seed, "greedy") not in results.figures:
        return "-"
    modes = (results.figures[arm, seed, mode] for mode in ("greedy", "sampled"))
    return " / ".join(_percent(one.level("accuracy")) for one in modes)


def _is_complete(results: Results, seed: int) -> bool:
    names = [judging(arm.name) for arm in results.protocol.arms]
    return all(is_done(results.records.get((seed, name))) for name in names)


def _done(records: Records) -> list[StageRun]:
    return [run for run in records.values() if is_done(run)]


def _interval(interval: Interval, metric: Metric, *, signed: bool) -> str:
    if math.isnan(interval.mean):
        return "-"
    mean = _scaled(interval.mean, metric, signed=signed)
    if math.isnan(interval.low):
        return f"{mean} (one seed)"
    low, high = (
        _scaled(v, metric, signed=signed, unit=False) for v in (interval.low, interval.high)
    )
    return f"{mean} ({low} to {high})"


def _scaled(value: float, metric: Metric, *, signed: bool = True, unit: bool = True) -> str:
    factor, word = UNITS[metric]
    places = 1 if factor == 100 else 2
    sign = "+" if signed else ""
    return f"{value * factor:{sign}.{places}f}{word if unit else ''}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(markdown_table(head, rows))


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
