"""Emergent code: what a policy learned to write that its demonstrations never showed.

Calls and techniques are read from syntax trees (`policies.analysis.code_usage`). Novel: in no
demonstration at all. Transferred: shown in demonstrations of other families only, and used in this
one.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ...policies.analysis.code_usage import Usage, usage_of
from ..config.settings import SFTSettings
from ..config.strict_model import accepted_part
from ..store.lineage import StageRun
from ..store.programs import Program
from ..store.store import Store
from .demonstrations import chosen_demonstrations

PERIODS = 5
"""Number of parts that the training steps are divided into; the first and last are compared."""


@dataclass(frozen=True, slots=True)
class Use:
    """Frequency of a call or composition, as shares of the trajectories that ran code.

    Attributes:
        name: Name of the call or composition.
        demonstrations: Share of the demonstrations.
        first: Share in the first part of training.
        last: Share in the last part of training.
        right: Share of the scored trajectories with it that answered right; NaN without any.
        count: Number of trajectories with it.
        first_step: Training step in which it first occurred.
    """

    name: str
    demonstrations: float
    first: float
    last: float
    right: float
    count: int
    first_step: int

    @property
    def is_novel(self) -> bool:
        """Whether no demonstration showed it."""
        return self.demonstrations == 0.0


@dataclass(frozen=True, slots=True)
class Emergence:
    """Code usage in training compared with the demonstrations.

    Attributes:
        demonstrations: Number of demonstrations that ran code.
        trajectories: Number of training trajectories that ran code.
        calls: Every call, the most used first.
        compositions: Every composition of techniques, the most used first.
        techniques: By technique: share of a step's trajectories with code, by step.
        transfer: By home family and family: share of the latter's trajectories with code that
            use a call which demonstrations showed in the home family and never in this one.
        families: Names of the families, in order.
    """

    demonstrations: int
    trajectories: int
    calls: tuple[Use, ...]
    compositions: tuple[Use, ...]
    techniques: Mapping[str, Sequence[tuple[float, float]]]
    transfer: Mapping[tuple[str, str], float]
    families: tuple[str, ...]


def find_emergence(demonstrations: Iterable[Program], trajectories: Iterable[Program]) -> Emergence:
    """Compare the code of training trajectories with that of their demonstrations."""
    shown = [(one, _usage(one.blocks)) for one in demonstrations if one.blocks]
    made = [(one, _usage(one.blocks)) for one in trajectories if one.blocks]
    return Emergence(
        demonstrations=len(shown),
        trajectories=len(made),
        calls=_uses(shown, made, lambda usage: usage.calls),
        compositions=_uses(shown, made, lambda usage: usage.compositions),
        techniques=_over_steps(made),
        transfer=_transfer(shown, made),
        families=tuple(sorted({one.family for one, _ in (*shown, *made)})),
    )


def training_emergence(
    store: Store, grpo: StageRun, *, family: str | None = None
) -> Emergence | None:
    """Compute the emergence of a GRPO stage run from the store, optionally for one family.

    None where the run has no curation or cold start among its inputs, as where another package
    replaces the stage: its demonstrations are not known then.
    """
    if not {"curate", "sft"} <= grpo.inputs.keys():
        return None
    curation = store.lineage.get(grpo.inputs["curate"])
    cold_start = store.lineage.get(grpo.inputs["sft"])
    known = accepted_part(SFTSettings, cold_start.parameters.get("sft", {}))
    settings = SFTSettings.model_validate(known)
    toolless = {*settings.shown_directly, *settings.easy_alone}
    chosen = set(chosen_demonstrations(store, curation).values())
    shown = [
        one
        for one in store.programs(curation.id)
        if one.trajectory in chosen and one.family not in toolless
    ]
    made = store.programs(grpo.id)
    return find_emergence(_of(shown, family), _of(made, family))


def _of(programs: Sequence[Program], family: str | None) -> list[Program]:
    return [one for one in programs if family in (None, one.family)]


Read = tuple[Program, Usage]
Names = Callable[[Usage], frozenset[str]]


@lru_cache(maxsize=65_536)
def _usage(blocks: tuple[str, ...]) -> Usage:
    return usage_of(blocks)


def _uses(shown: Sequence[Read], made: Sequence[Read], names: Names) -> tuple[Use, ...]:
    demonstrated = Counter(name for _, usage in shown for name in names(usage))
    steps = sorted({one.step for one, _ in made})
    part = max(1, len(steps) // PERIODS)
    early, late = set(steps[:part]), set(steps[-part:])
    first, last = ([r for r in made if r[0].step in some] for some in (early, late))
    found: defaultdict[str, list[Program]] = defaultdict(list)
    for one, usage in made:
        for name in names(usage):
            found[name].append(one)
    shares = [Counter(name for _, usage in some for name in names(usage)) for some in (first, last)]
    uses = [
        Use(
            name=name,
            demonstrations=demonstrated[name] / max(1, len(shown)),
            first=shares[0][name] / max(1, len(first)),
            last=shares[1][name] / max(1, len(last)),
            right=_share(one.is_right for one in programs),
            count=len(programs),
            first_step=min(one.step for one in programs),
        )
        for name, programs in found.items()
    ]
    return tuple(sorted(uses, key=lambda use: (-use.count, use.name)))


def _share(claims: Iterable[bool | None]) -> float:
    """Return the share of true claims, ignoring None."""
    known = [claim for claim in claims if claim is not None]
    return sum(known) / len(known) if known else math.nan


def _over_steps(made: Sequence[Read]) -> dict[str, list[tuple[float, float]]]:
    totals = Counter(one.step for one, _ in made)
    counts = Counter(
        (technique, one.step) for one, usage in made for technique in usage.all_techniques
    )
    order = Counter(technique for _, usage in made for technique in usage.all_techniques)
    return {
        technique: [
            (float(step), counts[technique, step] / totals[step]) for step in sorted(totals)
        ]
        for technique, _ in sorted(order.items(), key=lambda item: (-item[1], item[0]))
    }


def _transfer(shown: Sequence[Read], made: Sequence[Read]) -> dict[tuple[str, str], float]:
    known: defaultdict[str, set[str]] = defaultdict(set)
    for one, usage in shown:
        known[one.family] |= usage.calls
    totals = Counter(one.family for one, _ in made)
    counts: Counter[tuple[str, str]] = Counter()
    for one, usage in made:
        foreign = usage.calls - known[one.family]
        for home, calls in known.items():
            if home != one.family and foreign & calls:
                counts[home, one.family] += 1
    return {(home, family): count / totals[family] for (home, family), count in counts.items()}
