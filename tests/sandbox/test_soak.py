"""A soak test of 10,000 turns (`make test-soak`: 100,000): nothing leaks, is swapped or is lost."""

import pytest

from .soak import Plan, Soak
from .soak_memory import MemoryCurve


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(Plan(turns=2_000, sessions=40, turns_per_zygote=400), id="small"),
        pytest.param(
            Plan(turns=1_000, sessions=40, turns_per_zygote=250, isolation="confined"),
            id="confined",
        ),
        pytest.param(Plan(turns=10_000, sessions=200), id="large"),
    ],
)
def test_a_soak_test_with_random_kills_finds_nothing(plan):
    findings = Soak(plan).run()
    assert (findings.wrong, findings.unreported, findings.leaks) == ([], [], [])
    assert findings.turns == plan.turns
    assert findings.zygote_deaths > 0
    assert findings.kills > 0


@pytest.mark.slow
def test_a_leak_is_found(monkeypatch):
    kept = []

    def leak(soak, outcome, real=Soak._count):
        kept.append(b"x" * 200_000)
        real(soak, outcome)

    monkeypatch.setattr(Soak, "_count", leak)
    findings = Soak(Plan(turns=400, sessions=8, turns_per_zygote=100)).run()
    assert [leak.partition(":")[0] for leak in findings.leaks][-1:] == ["memory of the trainer"]


def curve_of(megabytes):
    curve = MemoryCurve(len(megabytes))
    for turn, value in enumerate(megabytes):
        curve.add("the trainer", turn, value)
    return curve


def test_memory_that_settles_is_flat_and_memory_that_grows_is_not():
    settles = [100 + min(turn, 20) for turn in range(80)]
    grows = [100 + turn / 3 for turn in range(80)]
    assert list(curve_of(settles).findings("the trainer")) == []
    assert list(curve_of(grows).findings("the trainer")) == [
        "memory of the trainer: 13 MB more in the last quarter"
    ]


def test_memory_without_samples_is_a_finding():
    assert list(curve_of([100.0] * 8).findings("the trainer")) == [
        "memory of the trainer: too few samples"
    ]
    assert MemoryCurve(100_000).is_due(1_250)
    assert not MemoryCurve(100_000).is_due(1_251)
