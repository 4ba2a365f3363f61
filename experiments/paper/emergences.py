"""Emergent compositions, absent from demonstrations and frequent after training, by seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from codedance.pipelines.analysis.emergence import PERIODS, Use, training_emergence
from codedance.pipelines.store.programs import Program
from codedance.pipelines.store.store import Store

from .plan import training
from .protocol import Claim, Protocol
from .records import Records, is_done
from .verdicts import Verdict

LEAST = 10
"""Minimum number of trajectories with a composition; fewer are treated as chance."""
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Emerged:
    """Result of a claim about emergence.

    Attributes:
        claim: The claim.
        verdict: ``holds`` if most of the seeds have a frequent new composition.
        frequent: New compositions that became frequent by seed, the most used first.
        rare: Other new compositions by seed, the most used first.
    """

    claim: Claim
    verdict: Verdict
    frequent: dict[int, tuple[Use, ...]]
    rare: dict[int, tuple[Use, ...]]


def find_emerged(
    claim: Claim, protocol: Protocol, store: Store, records: Records, seeds: Iterable[int]
) -> Emerged:
    """Find emergent compositions in the training of a claim's arm, for every finished seed."""
    frequent: dict[int, tuple[Use, ...]] = {}
    rare: dict[int, tuple[Use, ...]] = {}
    for seed in seeds:
        run = records.get((seed, training(claim.first)))
        if run is None or not is_done(run):
            continue
        found = training_emergence(store, run, family=claim.family)
        if found is None:
            continue
        coded = coded_share(store.programs(run.id), claim.family)
        new = [_of_all(use, coded) for use in found.compositions if use.is_novel]
        frequent[seed] = tuple(use for use in new if is_frequent(use, claim))
        rare[seed] = tuple(use for use in new if not is_frequent(use, claim))[:SHOWN]
    return Emerged(claim, _verdict(frequent, protocol), frequent, rare)


def is_frequent(use: Use, claim: Claim) -> bool:
    """Whether a composition is used often enough, and common in the last part of training."""
    return use.count >= LEAST and use.last >= claim.share


def coded_share(programs: Sequence[Program], family: str | None) -> tuple[float, float]:
    """Return the share of trajectories that ran code in the first and last part of training."""
    chosen = [one for one in programs if family in (None, one.family)]
    steps = sorted({one.step for one in chosen})
    part = max(1, len(steps) // PERIODS)
    first, last = set(steps[:part]), set(steps[-part:])
    return _coded(chosen, first), _coded(chosen, last)


def _coded(programs: Sequence[Program], steps: set[int]) -> float:
    some = [bool(one.blocks) for one in programs if one.step in steps]
    return sum(some) / max(1, len(some))


def _of_all(use: Use, coded: tuple[float, float]) -> Use:
    """Return shares of all trajectories instead of those with code."""
    return replace(use, first=use.first * coded[0], last=use.last * coded[1])


def _verdict(frequent: dict[int, tuple[Use, ...]], protocol: Protocol) -> Verdict:
    if len(frequent) < protocol.seeds:
        return "not yet decided"
    count = sum(bool(uses) for uses in frequent.values())
    return "holds" if 2 * count > len(frequent) else "does not hold"
