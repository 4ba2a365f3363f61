"""The nodes of a seed in order: one curation, then training and evaluation of each arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from .protocol import Arm, Protocol, ProtocolError

CURATE = "curate"
Stage = Literal["curate", "sft", "grpo", "evaluate"]


@dataclass(frozen=True, slots=True)
class Node:
    """A unit of work that is done once per seed.

    Attributes:
        name: ``curate``, ``train ARM`` or ``judge ARM``.
        stage: Stage that does the work.
        arm: Arm of the node; None for the shared curation.
        needs: Names of the nodes that it depends on.
    """

    name: str
    stage: Stage
    arm: Arm | None
    needs: tuple[str, ...]


def training(arm: str) -> str:
    """Return the name of the node that trains an arm."""
    return f"train {arm}"


def judging(arm: str) -> str:
    """Return the name of the node that evaluates an arm."""
    return f"judge {arm}"


def make_plan(protocol: Protocol, only: Sequence[str] = ()) -> list[Node]:
    """Return the nodes of a seed in order.

    Args:
        protocol: Protocol of the experiment.
        only: Patterns of names of arms, to select them and their dependencies; all if empty.

    Raises:
        ProtocolError: A pattern matches no arm.
    """
    chosen = _chosen(protocol, only)
    trained = _with_sources(protocol, chosen)
    nodes = [Node(CURATE, CURATE, None, ())]
    for arm in protocol.arms:
        if arm.name in trained:
            others = [training(name) for name in (arm.start, arm.as_long_as) if name is not None]
            nodes.append(Node(training(arm.name), arm.stage, arm, (CURATE, *others)))
        if arm.name in chosen:
            nodes.append(Node(judging(arm.name), "evaluate", arm, (training(arm.name),)))
    return nodes


def _chosen(protocol: Protocol, only: Sequence[str]) -> set[str]:
    names = [arm.name for arm in protocol.arms]
    if not only:
        return set(names)
    found: set[str] = set()
    for pattern in only:
        fitting = {name for name in names if fnmatchcase(name, pattern)}
        if not fitting:
            raise ProtocolError(f"no arm matches --only {pattern!r}; there are {', '.join(names)}")
        found |= fitting
    return found


def _with_sources(protocol: Protocol, chosen: set[str]) -> set[str]:
    """Return the arms and their dependencies; an arm depends on earlier ones only."""
    found = set(chosen)
    for arm in reversed(protocol.arms):
        if arm.name in found:
            found |= {name for name in (arm.start, arm.as_long_as) if name is not None}
    return found
