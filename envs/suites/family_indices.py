"""Indices of the tasks of families in a suite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .base import IndexedSuite, Suite


def family_indices(suite: Suite, families: Iterable[str]) -> dict[str, Sequence[int]]:
    """Return the indices of each family's tasks, in order.

    For a suite that does not provide them (`IndexedSuite`), every task is read once.
    """
    wanted = tuple(families)
    if isinstance(suite, IndexedSuite):
        return {family: suite.indices_of(family) for family in wanted}
    found: dict[str, list[int]] = {family: [] for family in wanted}
    for index in range(len(suite)):
        family = suite[index].family
        if family in found:
            found[family].append(index)
    return dict(found)
