"""Curation keeps useful tasks and drops the others with a reason."""

from __future__ import annotations

import pytest
from codedance.envs.types import Difficulty
from codedance.pipelines.stages.curation import (
    Candidate,
    Rules,
    count_reasons,
    decide,
    difficulty_of,
)


def candidate(key, weak=0.5, strong=1.0, **changes):
    return Candidate(key, "count", weak, strong, **changes)


def reasons(candidates, rules=None, seed=0):
    return {d.key: d.reason.split(":")[0] for d in decide(candidates, rules or Rules(), seed=seed)}


@pytest.mark.parametrize(
    ("rate", "difficulty"),
    [
        (0.0, Difficulty.HARD),
        (0.25, Difficulty.HARD),
        (0.26, Difficulty.MEDIUM),
        (0.74, Difficulty.MEDIUM),
        (0.75, Difficulty.EASY),
        (1.0, Difficulty.EASY),
        (None, Difficulty.MEDIUM),
    ],
)
def test_difficulty_follows_the_weak_policys_pass_rate(rate, difficulty):
    assert difficulty_of(rate, Rules()) is difficulty


def test_each_fault_has_its_own_reason():
    found = reasons(
        [
            candidate("leak", leak="toy/9"),
            candidate("twin", duplicate="toy/1"),
            candidate("lost", weak=None),
            candidate("lost too", strong=None),
            candidate("unsolvable", strong=0.0),
            candidate("good"),
        ]
    )
    assert found == {
        "leak": "leak",
        "twin": "duplicate",
        "lost": "unscored",
        "lost too": "unscored",
        "unsolvable": "unsolvable",
        "good": "kept",
    }


def test_leak_takes_precedence_over_every_other_reason():
    assert reasons([candidate("a", weak=1.0, strong=0.0, leak="x", duplicate="y")]) == {"a": "leak"}


def test_trivial_tasks_stay_within_their_share():
    others = [candidate(f"o{n}") for n in range(6)]
    trivial = [candidate(f"t{n}", weak=1.0) for n in range(10)]
    found = reasons([*others, *trivial], Rules(trivial_share=0.25))
    kept = [key for key, reason in found.items() if reason == "kept"]
    assert sum(key.startswith("t") for key in kept) == 2  # 2 of 8 kept are a quarter
    assert sum(reason == "trivial" for reason in found.values()) == 8


def test_share_of_nothing_drops_every_trivial_task():
    assert reasons([candidate("t", weak=1.0), candidate("o")], Rules(trivial_share=0.0)) == {
        "t": "trivial",
        "o": "kept",
    }


def test_easy_tasks_are_demonstrated_directly_and_hard_ones_with_tools():
    decisions = decide([candidate("e", weak=0.9), candidate("h", weak=0.0)], Rules(), seed=0)
    assert [d.demonstration for d in decisions] == ["direct", "tools"]


def test_tool_shares_are_respected():
    rules = Rules(tool_shares={Difficulty.EASY: 0.5, Difficulty.MEDIUM: 0.5, Difficulty.HARD: 1.0})
    many = [candidate(f"m{n}") for n in range(1000)]
    shown = [d.demonstration for d in decide(many, rules, seed=1)]
    assert 450 < shown.count("tools") < 550


def test_task_without_a_teacher_is_kept_and_demonstrated_directly():
    (decision,) = decide(
        [candidate("own", weak=0.0, strong=None, has_teacher=False)], Rules(), seed=0
    )
    assert decision.is_kept
    assert decision.demonstration == "direct"


def test_same_seed_decides_equally_for_any_neighbours():
    rules = Rules(tool_shares={Difficulty.EASY: 0.5, Difficulty.MEDIUM: 0.5, Difficulty.HARD: 0.5})
    many = [candidate(f"m{n}") for n in range(50)]
    whole = {d.key: d.demonstration for d in decide(many, rules, seed=3)}
    part = {d.key: d.demonstration for d in decide(many[::2], rules, seed=3)}
    assert part == {key: whole[key] for key in part}
    assert whole != {d.key: d.demonstration for d in decide(many, rules, seed=4)}


def test_reasons_are_counted():
    decisions = decide(
        [candidate("a"), candidate("b"), candidate("c", strong=0.0)], Rules(), seed=0
    )
    assert count_reasons(decisions) == {"kept": 2, "unsolvable": 1}
