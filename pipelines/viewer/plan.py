"""Content and order of a page: the episodes of one run, or of two, group by group."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ..config.registry import EVALUATION, known_names
from ..store.episodes import Episode
from ..store.lineage import PIPELINE, StageRun
from ..store.store import Store

SHOWN_STAGES = (EVALUATION, "grpo")
"""Stages in which a trained model acts; curation's weak and strong policies on request only."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An episode on the page.

    Attributes:
        row: Row number on the page, from 0.
        run: 0 for the first run, 1 for the one it is compared with.
        stage: Stage run that recorded it.
        episode: Its figures.
    """

    row: int
    run: int
    stage: StageRun
    episode: Episode

    @property
    def group(self) -> tuple[int, str, str, int, str]:
        """Key shared by siblings: run, stage run, phase, step and task."""
        e = self.episode
        return (self.run, self.stage.id, e.phase, e.step, e.task_key)

    @property
    def bundle(self) -> tuple[str, ...]:
        """Key of the bundle: evaluated episodes of a task together, others by group."""
        if self.stage.stage == EVALUATION:
            return (EVALUATION, self.episode.task_key)
        return tuple(str(part) for part in self.group)


def stage_runs(store: Store, run: StageRun, stages: Sequence[str]) -> list[StageRun]:
    """Return the stage runs of a run for these stages, including one that is still running."""
    if run.stage != PIPELINE:
        own = [run, *_inputs(store, run)]
        return [one for name in stages for one in own if one.stage == name]
    found: list[StageRun] = []
    for name in stages:
        if name in run.outputs:
            found.append(store.lineage.get(str(run.outputs[name])))
        else:
            found += store.lineage.find(parent=run.id, stage=name)[:1]
    return found


def list_episodes(
    store: Store, runs: Sequence[StageRun], stages: Sequence[str] = SHOWN_STAGES
) -> list[Shown]:
    """Return every episode to show, siblings next to each other.

    Raises:
        ValueError: A stage is unknown.
    """
    if unknown := set(stages) - set(known_names()):
        names = ", ".join(known_names())
        raise ValueError(f"no stage is called {min(unknown)!r}; there are {names}")
    shown: list[Shown] = []
    for number, run in enumerate(runs):
        for stage in stage_runs(store, run, stages):
            episodes = store.episodes(stage.id)
            first: dict[tuple[str, int, str], int] = {}
            for place, e in enumerate(episodes):
                first.setdefault((e.phase, e.step, e.task_key), place)
            phases = {e.phase: n for n, e in reversed(list(enumerate(episodes)))}
            episodes.sort(
                key=lambda e: (
                    phases[e.phase],
                    e.step,
                    first[e.phase, e.step, e.task_key],
                    e.sample,
                )
            )
            shown += [Shown(len(shown) + n, number, stage, e) for n, e in enumerate(episodes)]
    return shown


def bundles(shown: Iterable[Shown]) -> list[list[Shown]]:
    """Group the episodes that are viewed together into bundles."""
    found: defaultdict[tuple[str, ...], list[Shown]] = defaultdict(list)
    for one in shown:
        found[one.bundle].append(one)
    return list(found.values())


def sampled_first(found: Sequence[list[Shown]], *, seed: int = 0) -> Iterator[list[Shown]]:
    """Yield all bundles in an order whose every prefix is a representative sample of the stages."""
    by_stage: defaultdict[tuple[int, str], list[list[Shown]]] = defaultdict(list)
    for bundle in found:
        by_stage[bundle[0].run, bundle[0].stage.stage].append(bundle)
    generator = random.Random(seed)
    for part in by_stage.values():
        generator.shuffle(part)
    for drawn in zip_longest(*by_stage.values()):
        yield from (bundle for bundle in drawn if bundle is not None)


def _inputs(store: Store, run: StageRun) -> list[StageRun]:
    found: dict[str, StageRun] = {}
    pending = [str(value) for value in run.inputs.values()]
    while pending:
        stage = store.lineage.get(pending.pop())
        if stage.id not in found:
            found[stage.id] = stage
            pending.extend(str(value) for value in stage.inputs.values())
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Contrast:
    """Comparison of two policies (or runs) on the same tasks.

    Attributes:
        first: Name of the earlier one.
        second: Name of the later one.
        of_row: ``gained``, ``lost``, ``right`` (both), ``wrong`` (both) or ``mixed``, by row.
    """

    first: str
    second: str
    of_row: Mapping[int, str]


def find_contrast(shown: Sequence[Shown], names: Sequence[str]) -> Contrast | None:
    """Compare two runs phase by phase; for a single run its first and last evaluated policy."""
    judged = [one for one in shown if one.stage.stage == EVALUATION]
    policies = list(dict.fromkeys(one.episode.phase.partition("/")[0] for one in judged))
    if len(names) > 1:
        sides = list(names)
        keys = {one.row: (str(one.run), one.episode.phase) for one in judged}
        first, second = "0", "1"
    elif len(policies) > 1:
        first, second = policies[0], policies[-1]
        sides = [first, second]
        keys = {one.row: one.episode.phase.split("/", 1) for one in judged}
    else:
        return None
    found: defaultdict[tuple[str, str], dict[str, list[Shown]]] = defaultdict(dict)
    for one in judged:
        side, phase = (*keys[one.row], "")[:2]
        if side in (first, second):
            found[one.episode.task_key, phase].setdefault(side, []).append(one)
    of_row = {
        one.row: verdict
        for pair in found.values()
        if (verdict := _verdict(pair.get(first, []), pair.get(second, []))) is not None
        for part in pair.values()
        for one in part
    }
    return Contrast(sides[0], sides[1], of_row)


def _verdict(first: Sequence[Shown], second: Sequence[Shown]) -> str | None:
    before, after = _mean(first), _mean(second)
    if before is None or after is None:
        return None
    if before != after:
        return "gained" if after > before else "lost"
    return {1.0: "right", 0.0: "wrong"}.get(after, "mixed")


def _mean(part: Sequence[Shown]) -> float | None:
    values = [one.episode.accuracy for one in part if one.episode.is_valid]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
