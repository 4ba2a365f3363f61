"""The results match the recorded digests; `record` explains how a digest may change."""

from __future__ import annotations

import platform

import pytest
import torch

from . import record

HINT = "if a named fault or feature asks for it: python -m golden.record, and say why in CHANGES.md"
TORCH = "2.13.0"


def differing(now: dict, name: str) -> list[str]:
    """Return the entries that differ from the record."""
    before = record.recorded()[name]
    return sorted(key for key in before | now if before.get(key) != now.get(key))


def test_tasks_give_the_recorded_observations_rewards_and_endings():
    """Six of each split: every script, twice."""
    found, known = record.episodes(12), record.recorded()["episodes"]
    assert len(found) == 12
    assert [task for task, digests in found.items() if known.get(task) != digests] == [], HINT


@pytest.mark.slow
def test_a_hundred_tasks_give_the_recorded_observations_rewards_and_endings():
    assert differing(record.episodes(), "episodes") == [], HINT


@pytest.mark.slow
@pytest.mark.skipif(
    platform.machine() != "x86_64" or torch.__version__.split("+")[0] != TORCH,
    reason="weights were recorded on x86-64 with the tested version of torch",
)
def test_a_short_sft_and_a_short_grpo_give_the_recorded_weights():
    assert differing(record.weights(), "weights") == [], HINT


@pytest.mark.parametrize("name", ["schemas", "public names"])
def test_schemas_and_public_names_match_the_record(name):
    assert differing(record.declared()[name], name) == [], HINT


def test_each_state_of_the_digests_has_its_reason():
    state = record.whole_digest(record.DIGESTS.read_text(encoding="utf-8"))
    assert f"`{state}`" in record.CHANGES.read_text(encoding="utf-8"), HINT
