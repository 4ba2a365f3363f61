"""Tasks of a suite: candidates for training, held-out tasks for evaluation; names of families."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from ...envs import load_suite
from ...envs.suites.base import Suite
from ...envs.suites.jsonl import JsonlSuite
from ...envs.suites.reading import read_tasks
from ...envs.types import Task
from ..config.settings import GRPOSettings, Preset, SFTSettings
from ..config.strict_model import read_as
from ..runs.runner import StageError
from .seeding import draw_indices, spread_indices

SET_ASIDE = 5
"""In a file without splits, one task in this many is held out for evaluation."""


def draw_candidates(
    suite_name: str, count: int, *, seed: int, on_task: Callable[[int], None] | None = None
) -> list[Task]:
    """Return ``count`` train tasks (all, if there are no more), drawn by ``seed``.

    ``on_task`` is called with the number of tasks read so far.
    """
    suite = load_suite(suite_name, split="train")
    indices: Sequence[int] = range(len(suite))
    if names_no_splits(suite_name, suite):
        indices = [index for index in indices if index % SET_ASIDE]
    chosen = [indices[n] for n in draw_indices(len(indices), count, seed=seed)]
    return read_tasks(suite, chosen, on_task=on_task)


def held_out_tasks(suite_name: str, count: int, *, whole: bool = False) -> list[Task]:
    """Return ``count`` test tasks, evenly spaced: the same for every run, for comparability.

    Args:
        suite_name: Name of a suite, or path of a file of tasks.
        count: Number of tasks; all, if there are no more.
        whole: Whether to use every task of a file without splits, where none was trained on.
    """
    suite = load_suite(suite_name, split="test")
    indices: Sequence[int] = range(len(suite))
    if not whole and names_no_splits(suite_name, suite):
        indices = range(0, len(suite), SET_ASIDE)
    return read_tasks(suite, [indices[n] for n in spread_indices(len(indices), count)])


def names_no_splits(suite_name: str, suite: Suite) -> bool:
    """Return whether a suite has the same tasks as train and as test, as a plain file does."""
    if not suite_name.endswith(".jsonl") or not isinstance(suite, JsonlSuite):
        return False
    return not suite.names_splits


def check_family_names(preset: Preset) -> None:
    """Refuse a family in the settings of the trainings that the suite does not have.

    For some families of a suite (``nano:count,bars``), all of that suite are known.

    Raises:
        StageError: There is such a family.
    """
    sft, grpo = read_as(preset.sft, SFTSettings), read_as(preset.grpo, GRPOSettings)
    named = {
        "sft.shown_directly": sft.shown_directly,
        "sft.easy_alone": sft.easy_alone,
        "grpo.without_families": grpo.without_families,
    }
    if not any(named.values()):
        return
    is_file = preset.suite.endswith((".jsonl", ".py"))
    whole = preset.suite if is_file else preset.suite.partition(":")[0]
    known = load_suite(whole, split="train").families
    for setting, families in named.items():
        for one in families:
            if one not in known:
                near = difflib.get_close_matches(one, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise StageError(
                    f"{setting}: {whole} has no family {one!r}, only {', '.join(known)}{hint}"
                )
