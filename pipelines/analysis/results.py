"""Results of an evaluation: accuracy, tool calls, execution success by family and difficulty."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...envs.types import Difficulty
from ..store.episodes import Episode
from ..store.lineage import LOST, StageRun
from ..store.store import Store
from .statistics import Difference, Rate, paired_difference, rate_of

WHOLE = "all"


@dataclass(frozen=True, slots=True)
class Cell:
    """Metrics of one policy in one mode on one group of tasks.

    Attributes:
        accuracy: Share of right answers among the episodes not lost to our infrastructure.
        tool_calls: Mean number of tool calls per episode; NaN without episodes.
        execution_success: Share of tool calls that ran without error; NaN without calls.
        lost: Number of episodes lost to our infrastructure, masked from all other metrics.
    """

    accuracy: Rate
    tool_calls: float
    execution_success: float
    lost: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Metrics of an evaluation.

    Attributes:
        run: The evaluation run.
        phases: ``policy/mode``, in order of evaluation.
        groups: ``all``, the difficulties, the families, in order of display.
        cells: Metrics by phase and group.
        differences: By mode and group: the last policy against the first, on the same items.
        within_tenth: By phase: share of whole-number answers within 10 % of the truth, where the
            suite asks for counts; empty otherwise.
    """

    run: StageRun
    phases: tuple[str, ...]
    groups: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    differences: Mapping[tuple[str, str], Difference]
    within_tenth: Mapping[str, Rate]

    @property
    def modes(self) -> tuple[str, ...]:
        """Decoding modes that were evaluated: greedy, sampled."""
        return tuple(dict.fromkeys(phase.split("/")[1] for phase in self.phases))

    @property
    def lost(self) -> dict[str, int]:
        """Number of episodes without a verdict by phase, stored as lost or never begun."""
        reported: Mapping[str, int] = self.run.outputs.get(LOST, {})
        stored = {phase: self.cells[phase, WHOLE].lost for phase in self.phases}
        return {phase: max(count, reported.get(phase, 0)) for phase, count in stored.items()}

    @property
    def policies(self) -> tuple[str, ...]:
        """The evaluated policies, in order."""
        return tuple(dict.fromkeys(phase.split("/")[0] for phase in self.phases))


def summarise(store: Store, run: StageRun) -> Summary:
    """Compute the metrics of an evaluation from the store.

    Episodes whose phase is not ``policy/mode``, as another package's evaluation may store them, are
    left out.
    """
    episodes = [e for e in store.episodes(run.id) if e.phase.count("/") == 1]
    phases = tuple(dict.fromkeys(e.phase for e in episodes))
    groups = _groups(episodes)
    cells = {
        (phase, group): _cell([e for e in episodes if e.phase == phase and belongs(e)])
        for phase in phases
        for group, belongs in groups.items()
    }
    return Summary(
        run=run,
        phases=phases,
        groups=tuple(groups),
        cells=cells,
        differences=_differences(episodes, phases, groups),
        within_tenth=_within_tenth(episodes, phases) if "nuclei" in _suite(run) else {},
    )


def table_head(summary: Summary) -> list[str]:
    """Return the header of the table shown at the end of a run; `table_rows` has its rows."""
    names = summary.policies
    gain = ["difference (95 %)"] if len(names) > 1 else []
    return [
        "tasks",
        "count",
        *(f"{name}: right (95 %)" for name in names),
        *gain,
        *(f"{name}: tool calls" for name in names),
        *(f"{name}: code ran" for name in names),
    ]


def table_rows(summary: Summary, mode: str) -> list[list[str]]:
    """Return one row per group: the policies side by side, in one mode (greedy or sampled)."""
    rows: list[list[str]] = []
    for group in summary.groups:
        found = [summary.cells.get((f"{name}/{mode}", group)) for name in summary.policies]
        cells = [cell or _cell([]) for cell in found]
        gap = summary.differences.get((mode, group))
        rows.append(
            [
                group,
                str(cells[0].accuracy.count),
                *(_accuracy(cell.accuracy) for cell in cells),
                *([] if gap is None else [_gain(gap)]),
                *(_number(cell.tool_calls) for cell in cells),
                *(_percent(cell.execution_success) for cell in cells),
            ]
        )
    return rows


def lost_lines(summary: Summary) -> list[str]:
    """Return a line per phase with the number of episodes lost to our infrastructure, if any."""
    return [
        f"{phase}: {count} episodes lost to our infrastructure, left out of every figure; the same "
        "command reruns them"
        for phase, count in summary.lost.items()
        if count
    ]


def difference_lines(summary: Summary) -> list[str]:
    """Return lines that compare the last policy with the first on the same items."""
    if len(summary.policies) < 2:
        return []
    first, last = summary.policies[0], summary.policies[-1]
    return [
        f"{last} against {first}, {mode}, {d.count} tasks paired: {100 * d.mean:+.1f} points "
        f"(95 %: {100 * d.low:+.1f} to {100 * d.high:+.1f}); better on {d.better}, worse on "
        f"{d.worse}"
        for (mode, group), d in summary.differences.items()
        if group == WHOLE and d.count
    ]


def _groups(episodes: Sequence[Episode]) -> dict[str, Callable[[Episode], bool]]:
    """Return all, each difficulty, each family; a single one would only repeat all."""
    groups: dict[str, Callable[[Episode], bool]] = {WHOLE: lambda _: True}
    difficulties = [
        difficulty for difficulty in Difficulty if any(e.difficulty is difficulty for e in episodes)
    ]
    families = sorted({e.family for e in episodes})
    for difficulty in difficulties if len(difficulties) > 1 else ():
        groups[str(difficulty)] = lambda e, difficulty=difficulty: e.difficulty is difficulty
    for family in families if len(families) > 1 else ():
        groups[family] = lambda e, family=family: e.family == family
    return groups


def _cell(episodes: Sequence[Episode]) -> Cell:
    valid = [e for e in episodes if e.is_valid and e.accuracy is not None]
    calls = sum(e.tool_calls for e in valid)
    return Cell(
        accuracy=rate_of(e.accuracy == 1.0 for e in valid),
        tool_calls=calls / len(valid) if valid else math.nan,
        execution_success=sum(e.tool_successes for e in valid) / calls if calls else math.nan,
        lost=len(episodes) - len(valid),
    )


def _differences(
    episodes: Sequence[Episode],
    phases: Sequence[str],
    groups: Mapping[str, Callable[[Episode], bool]],
) -> dict[tuple[str, str], Difference]:
    policies = list(dict.fromkeys(phase.split("/")[0] for phase in phases))
    if len(policies) < 2:
        return {}
    found: dict[tuple[str, str], Difference] = {}
    for mode in dict.fromkeys(phase.split("/")[1] for phase in phases):
        for group, belongs in groups.items():
            chosen = [e for e in episodes if belongs(e)]
            first = by_task(chosen, f"{policies[0]}/{mode}")
            last = by_task(chosen, f"{policies[-1]}/{mode}")
            both = sorted(first.keys() & last.keys())
            found[mode, group] = paired_difference(
                [first[key] for key in both], [last[key] for key in both]
            )
    return found


def by_task(episodes: Sequence[Episode], phase: str) -> dict[str, float]:
    """Return the mean accuracy of each task over its valid samples."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for e in episodes:
        if e.phase == phase and e.is_valid and e.accuracy is not None:
            values[e.task_key].append(e.accuracy)
    return {key: sum(v) / len(v) for key, v in values.items()}


def _within_tenth(episodes: Sequence[Episode], phases: Sequence[str]) -> dict[str, Rate]:
    return {
        phase: rate_of(
            _is_near(e)
            for e in episodes
            if e.phase == phase and e.is_valid and e.accuracy is not None
        )
        for phase in phases
    }


def _is_near(episode: Episode) -> bool:
    try:
        answer, truth = float(episode.answer or "nan"), float(episode.true_answer)
    except ValueError:
        return False
    return abs(answer - truth) <= 0.1 * abs(truth)


def _suite(run: StageRun) -> str:
    return str(run.parameters.get("suite", ""))


def _accuracy(rate: Rate) -> str:
    if not rate.count:
        return "-"
    return f"{100 * rate.share:.1f} ({100 * rate.low:.0f} to {100 * rate.high:.0f})"


def _gain(gap: Difference) -> str:
    if not gap.count:
        return "-"
    return f"{100 * gap.mean:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"
